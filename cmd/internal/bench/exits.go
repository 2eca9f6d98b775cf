package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/fineline-vmm/fineline/vmm"
)

const (
	exitsGuestBytes = 16 << 20
	exitsPerRun     = 4_000 // short, so that ours and the bare loop meet the same noise
)

// Exits measures what one port and one MMIO exit cost a guest, here and in a loop
// that does nothing but KVM_RUN. The guest times itself by its TSC. It runs machines in
// this process, so the same process must not start others after it (see package process).
func Exits(ctx context.Context, runs int, progress Progress) (*Report, error) {
	r, err := newReport("exits")
	if err != nil {
		return nil, err
	}
	kinds := []string{"pio", "mmio"}
	total := len(kinds) * runs
	for k, kind := range kinds {
		var ours, bare []float64
		cmdline := fmt.Sprintf("loop=%s count=%d", kind, exitsPerRun)
		for run := range runs {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			v, err := machineExit(cmdline)
			if err != nil {
				return nil, err
			}
			b, khz, err := bareExit(cmdline)
			if err != nil {
				return nil, err
			}
			us := 1000 / float64(khz) // of one tick
			ours, bare = append(ours, v*us), append(bare, b*us)
			progress(k*runs+run+1, total)
		}
		r.add(kind+" exit", "µs", "bare KVM_RUN loop", ours, bare)
	}
	return r, nil
}

// loopTicks finds "loop end count=N tsc=TICKS" in the guest's output.
func loopTicks(serial string) (perExit float64, err error) {
	_, text, ok := strings.Cut(serial, "tsc=")
	if !ok {
		return 0, fmt.Errorf("the guest did not report its time, it said %q", serial)
	}
	digits, _, _ := strings.Cut(text, "\n")
	ticks, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the guest reported its time as %q", digits)
	}
	return float64(ticks) / exitsPerRun, nil
}

// machineExit runs the guest in a whole machine and returns the TSC ticks of one exit.
func machineExit(cmdline string) (float64, error) {
	var out syncBuffer
	m, err := vmm.New(vmm.Config{
		CPUs: 1, MemoryBytes: exitsGuestBytes, CPUModel: vmm.CPUHost, SerialOut: &out,
		Boot: vmm.BootFiles{Kernel: vmm.BuiltinPrefix + "hello", Cmdline: cmdline},
	})
	if err != nil {
		return 0, err
	}
	if err = m.Boot(); err == nil {
		err = m.Resume()
	}
	if err != nil {
		return 0, errors.Join(err, m.Close())
	}
	<-m.Done()
	outcome := m.Outcome()
	if err := errors.Join(outcome.Err, m.Close()); err != nil {
		return 0, err
	}
	return loopTicks(out.String())
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
