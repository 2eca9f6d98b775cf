// Package doctor finds out what this host can do for Fineline, and what its
// owner may do about the rest.
//
// Each finding is tried, not guessed: /dev/kvm is opened, a userfaultfd is made,
// a memfd is made. A finding that is required and absent makes the host unfit; the
// list of KVM's required capabilities is the one in vmm/kvm that `fineline run`
// checks too.
package doctor
