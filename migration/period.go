package migration

import (
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

const (
	// checkpointShare: checkpoints may cost the guest one part in so many of its time.
	checkpointShare = 5
	// writeFault is what a page costs the vCPU that writes it first after a checkpoint: collecting has protected it again. Measured with KVM's
	// log on software KVM, where it is 3.6 to 4.3 µs. Hardware takes less, and none at all where the processor keeps the log
	// (Intel's PML): there checkpoints come less often than they could.
	writeFault = 4 * time.Microsecond
)

// checkpointPeriod is how long after the beginning of a checkpoint the next one may begin: the interval, or longer if the guest would have less
// than its share of the time. It stood still for the pause, and pages were collected.
//
// The pause is the smaller part: with 16384 pages of one changed line it was 7 ms (0.3 to save the state, 0.5 to collect, 6 to compare), and the
// faults behind it took 60 ms. So a bound on pauses alone would bound little. The faults are counted as if one vCPU took them all, so that
// none is slowed down by more. What they really take can't be seen from here: a vCPU's time in the kernel has other reasons too.
func checkpointPeriod(interval, pause time.Duration, pages uint64) time.Duration {
	cost := pause + time.Duration(pages)*writeFault
	return min(max(interval, checkpointShare*cost), wire.MaxCheckpointMS*time.Millisecond)
}
