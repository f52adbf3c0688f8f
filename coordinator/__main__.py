"""`python -m coordinator`: the same as `ssd-coordinator`."""

from ssd.daemon.child_process import one_blas_thread

if __name__ == "__main__":
    one_blas_thread()  # before anything imports numpy
    from coordinator.cli.main import main

    main()
