"""The service that workers talk to: the control stream, blobs going down, updates coming up."""
