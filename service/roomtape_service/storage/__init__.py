"""Where segments go: the Store protocol, the disk, S3 and its vendors, and the way there from the spool."""
