package migration

import (
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/postcopy"
)

// Source is a running machine that can be given away. Send makes one call at a time, with one exception:
// while SaveState runs, dirty pages are collected and read.
type Source interface {
	// Description is the machine's shape: CPUID, memory, devices, state version. The VMM makes it and
	// the destination's VMM compares it; it is opaque here. At most 16 MiB.
	Description() ([]byte, error)
	// Memory is the machine's RAM, owned by the machine.
	Memory() *memory.Guest
	// DirtySource reports the stores that guest code makes.
	DirtySource() memory.DirtySource
	// Pause returns when no guest instruction runs and no device stores to guest memory any more.
	Pause() error
	// Resume undoes Pause. Resuming a machine that was not paused does nothing.
	Resume() error
	// SaveState returns all state but RAM, at most 16 MiB. The machine is paused. Stores that it makes
	// to guest memory are still sent.
	SaveState() ([]byte, error)
	// Release is called once, after the commit: the guest belongs to another process and must never
	// run here again.
	Release()
}

// RestoreToucher is a Source or a Target that knows which pages of memory the destination's RestoreState looks for. In
// post-copy they go before the state: nobody brings a page before the commit, and a hypervisor that waited for
// one in the kernel would never be ready. The destination refuses a state of which one is absent.
type RestoreToucher interface {
	// RestorePages is asked with what SaveState returned, or a peer has sent. Pages that are not RAM are ignored.
	RestorePages(state []byte) ([]memory.GPA, error)
}

// CPUMeter is a Source that knows how much of the processors its process takes beside its guest.
type CPUMeter interface {
	// CPUTime is the processor time of this process so far, without that of the threads that run the guest.
	CPUTime() (time.Duration, error)
}

// LocalTarget is a Target that can also build the machine on the source's own memory, for wire.ModeLocal.
type LocalTarget interface {
	Target
	// PrepareLocal is Prepare on memory that lives: files are the descriptors that the source's memory.Guest
	// has lent, from a peer that may be hostile. It takes them, also when it fails. Until Run the memory is
	// the source's, whose guest may run at any time: nothing may store to it, in PrepareLocal, RestoreState
	// and Discard neither. RestoreState may read it: the guest stands still then.
	PrepareLocal(description []byte, files []int) (*memory.Guest, error)
}

// LineTarget is a Target whose guest may wait for lines of missing memory where others wait for pages.
type LineTarget interface {
	Target
	// HomeMissing is called once, between Prepare and RestoreState, with what of the memory is missing. It returns what is to
	// be filled instead; nil: d, by the page. The Demand stays the caller's.
	HomeMissing(d *memory.Demand) (postcopy.LineMemory, error)
}

// Target builds the machine that arrives. Receive calls it from one goroutine at a time.
type Target interface {
	// Prepare compares the description with what this host and its flags can be, and builds the
	// machine, paused. Its error is the refusal that the source's user reads. The RAM belongs to the
	// machine; its content does not matter, it is reset.
	Prepare(description []byte) (*memory.Guest, error)
	// RestoreState puts the machine into the saved state. All RAM is in place.
	RestoreState(state []byte) error
	// Run lets the guest go, once, after the commit. It should have nothing left that can fail.
	Run() error
	// Discard throws the machine away after Prepare succeeded. It is not called after Run.
	Discard()
}
