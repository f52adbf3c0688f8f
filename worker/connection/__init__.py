"""The way to the coordinator: the control stream, enrolment, certificate renewal, background calls."""
