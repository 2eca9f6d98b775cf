package bench

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/coherence/diff"
)

// diffSize is a number of pages, each with its twin, and how often a run goes over them.
type diffSize struct {
	name   string
	pages  int
	passes int
}

// A run takes some milliseconds, so that ours and the peer meet the same noise.
var (
	diffL1   = diffSize{"first cache (16 KiB)", 2, 10_000}
	diffL2   = diffSize{"second cache (512 KiB)", 64, 300}
	diffCold = diffSize{"memory (256 MiB)", 32 << 10, 1}
)

// A processor that was idle, or waited for memory, takes some milliseconds to raise its clock.
const warmUp = 20 * time.Millisecond

// diffCase is one row: ours beside the peer, which do as much work.
type diffCase struct {
	name, peerName string
	bytes          int    // of a pass, counted alike on both sides
	passes         int    // of a run
	before         func() // each pass, not timed; may be nil
	ours, peer     func() // a pass
}

// Diff measures the kernels of package diff on one core.
func Diff(ctx context.Context, runs int, progress Progress) (*Report, error) {
	kind, err := kvmKind()
	if err != nil {
		kind = "absent"
	}
	r, err := reportOn("diff", kind)
	if err != nil {
		return nil, err
	}
	return r, diffRows(ctx, r, diffCases(diffL1, diffL2, diffCold), runs, progress)
}

func diffCases(l1, l2, cold diffSize) []diffCase {
	first, memory := newDiffBench(l1), newDiffBench(cold)
	var all []diffCase
	for _, b := range []*diffBench{first, newDiffBench(l2), memory} {
		all = append(all, b.clean()...)
	}
	all = append(all, first.hashes()...)
	all = append(all, memory.scattered()...)
	random := memory.random
	all = append(all,
		memory.changed("1 line a page", func() uint64 { return 1 << random.IntN(diff.PageLines) }),
		memory.changed("random halves", random.Uint64),
		memory.changed("every line", func() uint64 { return ^uint64(0) }))
	return append(all, first.copies()...)
}

func diffRows(ctx context.Context, r *Report, cases []diffCase, runs int, progress Progress) error {
	runtime.LockOSThread() // whose time counts
	defer runtime.UnlockOSThread()
	for i, c := range cases {
		var ours, peer []float64
		for start := time.Now(); time.Since(start) < warmUp; { // memory is mapped, caches are filled
			if _, err := c.run(c.ours); err != nil {
				return err
			}
		}
		for run := range runs {
			if err := ctx.Err(); err != nil {
				return err
			}
			o, err := c.run(c.ours)
			if err != nil {
				return err
			}
			p, err := c.run(c.peer)
			if err != nil {
				return err
			}
			ours, peer = append(ours, o), append(peer, p)
			progress(i*runs+run+1, len(cases)*runs)
		}
		r.add(c.name, "GB/s", c.peerName, ours, peer)
	}
	return nil
}

// run returns the rate of one run in GB/s of the thread's CPU time: kernels never wait, and
// what else runs on this machine does not count.
func (c *diffCase) run(pass func()) (float64, error) {
	var took time.Duration
	passes := c.passes // between two looks at the clock
	if c.before != nil {
		passes = 1
	}
	for range c.passes / passes {
		if c.before != nil {
			c.before()
		}
		start, err := threadTime()
		if err != nil {
			return 0, err
		}
		for range passes {
			pass()
		}
		end, err := threadTime()
		if err != nil {
			return 0, err
		}
		took += end - start
	}
	return float64(c.bytes) * float64(c.passes) / float64(took.Nanoseconds()), nil
}

// threadTime is what the locked thread has used of its processor.
func threadTime() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		return 0, fmt.Errorf("clock of the thread: %w", err)
	}
	return time.Duration(now.Nano()), nil
}
