// Package replay runs predictors against access patterns in a model of a post-copy pager, and
// counts network faults, hits and waste.
//
// Time is in steps, which the defaults take for microseconds. A vCPU touches a page every
// AccessSteps; on an absent page it waits. The pager asks the source for it, together with what the predictor
// names; the source sends the page, then what was predicted as one frame, one request after the other over
// one path of its own. So predictions that are too many delay the next fault, and a page can be touched
// while it is under way: that is a fault too, the guest waits (Report.Late). The background
// copy, if there is one, has a path of its own of the same speed and begins behind the last miss, as in package
// migration's post-copy. What the model leaves out: the cost of a fault itself, a shared link, pages of zeros.
//
// Runs are deterministic: the same trace and configuration give the same report.
package replay
