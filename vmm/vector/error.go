package vector

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fineline-vmm/fineline/memory"
)

var (
	// ErrUnknown: an instruction that this package does not carry out.
	ErrUnknown = errors.New("not a vector move that is known")
	// ErrTruncated: the code ends inside the instruction.
	ErrTruncated = fmt.Errorf("%w: the instruction's bytes are incomplete", ErrUnknown)
	// ErrNotMapped: the guest's page tables have no page for an address.
	ErrNotMapped = errors.New("no translation")
	// ErrNotPermitted: the page is there, and the CPU would fault or set a flag in its entry.
	ErrNotPermitted = errors.New("the page tables do not permit the access as they are")
)

// UnknownError says that nothing was done: the CPU has to run the instruction itself, for which
// Pages must be open to the guest. It wraps ErrUnknown, ErrNotMapped or ErrNotPermitted.
type UnknownError struct {
	// Pages are all pages that the instruction may touch and that are mapped now, each
	// once: those of its memory operand, or those of its code if its bytes could not be
	// read. Empty: the instruction has no memory operand, or the guest has just unmapped it.
	Pages []memory.GPA
	Code  []byte
	Err   error
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("instruction % x: %v (pages %#x)", e.Code, e.Err, e.Pages)
}

func (e *UnknownError) Unwrap() error { return e.Err }

// add adds the page of gpa.
func (e *UnknownError) add(gpa memory.GPA) {
	page := gpa &^ (memory.PageSize - 1)
	if !slices.Contains(e.Pages, page) {
		e.Pages = append(e.Pages, page)
	}
}
