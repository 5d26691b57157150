"""Attribution: which pixels an answer depends on."""
