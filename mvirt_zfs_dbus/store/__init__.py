"""Where disks live. This layer knows no bus and no job."""
