package matrix

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// obedient is a guest that resets or powers off at once when told: `r` or `q` on its serial port. It counts its boots
// in the clock's memory, which survives a reset, and prints the count as one byte. In each boot it wants 1024 pages to be
// zero, and writes to each; it powers off if one is not. While it waits it writes to one more.
var obedient = []byte{
	0xb0, 0x40, 0xe6, 0x70, 0xe4, 0x71, // mov $0x40, %al; out %al, $0x70; in $0x71, %al
	0xfe, 0xc0, 0x88, 0xc4, // inc %al; mov %al, %ah
	0xb0, 0x40, 0xe6, 0x70, 0x88, 0xe0, 0xe6, 0x71, // mov $0x40, %al; out %al, $0x70; mov %ah, %al; out %al, $0x71
	0xbf, 0x00, 0x00, 0x40, 0x00, // mov $0x400000, %edi
	0x83, 0x3f, 0x00, 0x75, 0x3b, // each: cmpl $0, (%edi); jne off
	0xc7, 0x07, 0x01, 0x00, 0x00, 0x00, // movl $1, (%edi)
	0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add $0x1000, %edi
	0x81, 0xff, 0x00, 0x00, 0x80, 0x00, 0x72, 0xe7, // cmp $0x800000, %edi; jb each
	0x66, 0xba, 0xf8, 0x03, 0xee, // mov $0x3f8, %dx; out %al, (%dx)
	0xff, 0x05, 0x00, 0x00, 0x20, 0x00, // wait: incl 0x200000
	0x66, 0xba, 0xfd, 0x03, 0xec, // mov $0x3fd, %dx; in (%dx), %al
	0xa8, 0x01, 0x74, 0xf1, // test $1, %al; jz wait
	0x66, 0xba, 0xf8, 0x03, 0xec, // mov $0x3f8, %dx; in (%dx), %al
	0x3c, 0x71, 0x74, 0x0a, // cmp $'q', %al; je off
	0xb0, 0x06, 0x66, 0xba, 0xf9, 0x0c, 0xee, // mov $6, %al; mov $0xcf9, %dx; out %al, (%dx)
	0xf4, 0xeb, 0xfd, // hlt; jmp .-1
	0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xf4, // off: mov $0x604, %dx; mov $0x2000, %ax; out %ax, (%dx); hlt
}

// bootObedient returns when the guest has written to its memory.
func bootObedient(t *testing.T) *guest {
	t.Helper()
	g := build(t, vmm.Config{CPUs: 2}, vmm.BootFiles{Kernel: vmmtest.RawKernel(t, obedient)})
	g.resume()
	g.must(g.booted(1))
	return g
}

// booted waits until the guest has said so often that it booted, each time once. For any goroutine.
func (g *guest) booted(n int) error {
	want := make([]byte, n)
	for i := range want {
		want[i] = byte(i + 1)
	}
	return g.hasSaid(string(want))
}

// awaitEnd waits for the guest to power off. For any goroutine.
func (g *guest) awaitEnd(m *vmm.Machine) {
	g.t.Helper()
	select {
	case <-m.Done():
		if o := m.Outcome(); o.Kind != vmm.EndedByPowerOff {
			g.t.Errorf("the guest ended with %+v", o)
		}
	case <-g.ctx.Done():
		g.t.Error("the guest does not end")
	}
}

// slowly makes a trip take a while, in rounds that do not converge.
func slowly(mode wire.Mode) trip {
	p := to(mode)
	p.opts.MaxBandwidthBytesPerS = 16 << 20
	p.opts.Rule.MaxRounds = 3
	return p
}

// inRound calls do once, in the round with this number while the guest runs at the source. Its error ends the trip.
func inRound(n int, do func() error) func(migration.Progress, context.CancelCauseFunc) {
	return func(p migration.Progress, cancel context.CancelCauseFunc) {
		if p.Phase != "precopy" || p.Round < n || do == nil {
			return
		}
		if err := do(); err != nil {
			cancel(err)
		}
		do = nil
	}
}

// TestGuestResets: a guest that starts over during the rounds, or while its memory is on the way, goes on with
// memory that is zero, whatever arrives later.
func TestGuestResets(t *testing.T) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			g := bootObedient(t)
			boots := 1
			again := func() error {
				boots++
				if err := g.say("r"); err != nil {
					return err
				}
				return g.booted(boots)
			}
			for range 3 {
				p := slowly(mode)
				p.progress = inRound(1, again)
				p.arrived = func(m *vmm.Machine, _ func()) {
					if err := m.Feed(g.ctx, []byte("r")); err != nil {
						t.Error(err)
					}
				}
				if _, err := g.migrate(p); err != nil {
					t.Fatal(err)
				}
				boots++
				g.must(g.booted(boots))
			}
			g.must(again())
			g.must(g.say("q"))
			g.awaitEnd(g.m)
		})
	}
}

// TestGuestPowersOff: a guest that ends during the rounds ends the migration, at the source; one that ends while its
// memory is on the way has ended at the destination, and the source need not wait for more.
func TestGuestPowersOff(t *testing.T) {
	for _, mode := range []wire.Mode{wire.ModePrecopy, wire.ModeHybrid} {
		t.Run(fmt.Sprintf("%s, in a round", mode), func(t *testing.T) {
			g := bootObedient(t)
			p := slowly(mode)
			p.progress = inRound(1, func() error {
				err := g.say("q")
				if err == nil {
					g.awaitEnd(g.m)
				}
				return err
			})
			r, err := g.migrate(p)
			if !errors.Is(err, vmm.ErrStopped) || r.Status != migration.StatusFailed {
				t.Fatalf("%v, %+v", err, r)
			}
		})
	}
	for _, mode := range []wire.Mode{wire.ModePostcopy, wire.ModeHybrid} {
		for _, leaves := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, after the switch, the process ends %t", mode, leaves), func(t *testing.T) {
				g := bootObedient(t)
				p := slowly(mode)
				p.arrived = func(m *vmm.Machine, leave func()) {
					if err := m.Feed(g.ctx, []byte("q")); err != nil {
						t.Error(err)
					}
					g.awaitEnd(m)
					if leaves {
						leave()
					}
				}
				if r, err := g.migrate(p); err != nil || r.Status != migration.StatusCompleted {
					t.Fatalf("%v, %+v", err, r)
				}
			})
		}
	}
}
