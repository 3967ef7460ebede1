"""Generated from proto/ by the protocol buffer compiler; never edited by hand."""
