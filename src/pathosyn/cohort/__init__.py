"""Many lesions on prepared scans: which scenes they are drawn on, where their masks lie, and how each kind of method draws one."""
