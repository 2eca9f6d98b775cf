package matrix

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm"
)

// to is the simplest trip in a mode; hybrid does not converge, so that it really goes on after the guest.
func to(mode wire.Mode) trip {
	p := trip{opts: migration.SendOptions{Mode: mode}}
	if mode == wire.ModeHybrid {
		p.opts.Rule = migration.Rule{MaxDowntime: time.Microsecond, MaxRounds: 3}
	}
	return p
}

// mustMigrate insists on success and on the right memory of a guest that runs.
func (g *guest) mustMigrate(p trip) *migration.Result {
	g.t.Helper()
	r, err := g.migrate(p)
	if err == nil {
		err = g.arrived()
	}
	if err != nil {
		g.t.Fatalf("%v: %v", p, err)
	}
	return r
}

// mayBeRefused is mustMigrate where the host's pool of huge pages, whose pages cannot be missing, may be in use: then
// the destination says so before the guest is paused.
func (g *guest) mayBeRefused(p trip) {
	g.t.Helper()
	r, err := g.migrate(p)
	var refused *migration.RefusedError
	if errors.As(err, &refused) && len(r.Rounds) == 0 && g.m.Status() == vmm.Running {
		g.t.Log(err)
		err = nil
	}
	if err == nil {
		err = g.arrived()
	}
	if err != nil {
		g.t.Fatalf("%v: %v", p, err)
	}
}

func (g *guest) mustAsk() {
	g.t.Helper()
	if err := g.ask(); err != nil {
		g.t.Fatal(err)
	}
}

func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	_, seed := journeys(t)
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestShapes: small and large memory, memory above the hole below 4 GiB, huge pages, one to eight vCPUs, by the
// dirty log and by the ring. Each guest goes through all modes.
func TestShapes(t *testing.T) {
	rng := seeded(t)
	type shape struct {
		name    string
		cfg     vmm.Config
		cmdline string
		rings   []bool
	}
	both := []bool{false, true}
	shapes := []shape{
		{"64 MiB", vmm.Config{CPUs: 1, MemoryBytes: 64 << 20}, "pages=4096 lines=1", both},
		{"8 GiB", vmm.Config{CPUs: 2, MemoryBytes: 8 << 30}, "pages=16384 lines=1 vcpus=2 pattern=seq", both},
		{"above 4 GiB", vmm.Config{CPUs: 2, MemoryBytes: 5 << 30}, "base=0x100000000 pages=4096 lines=2 vcpus=2", both},
		{"the last pages", vmm.Config{CPUs: 1, MemoryBytes: 5 << 30}, "base=0x17ff00000 pages=256", both},
		{"huge pages", vmm.Config{CPUs: 2, MemoryBytes: 64 << 20, HugePages: true}, "pages=2048 vcpus=2", both},
	}
	for cpus := 1; cpus <= 8; cpus++ {
		shapes = append(shapes, shape{fmt.Sprintf("%d vCPUs", cpus), vmm.Config{CPUs: cpus, MemoryBytes: 32 << 20},
			fmt.Sprintf("vcpus=%d pages=512 rate=20000", cpus), both[cpus%2 : cpus%2+1]})
	}
	for _, s := range shapes {
		for _, ring := range s.rings {
			t.Run(fmt.Sprintf("%s, ring %t", s.name, ring), func(t *testing.T) {
				s.cfg.DirtyRing = ring
				g := boot(t, s.cfg, "progress=0 "+s.cmdline)
				for _, n := range rng.Perm(len(modes)) {
					g.goForward(1000)
					if s.cfg.HugePages && modes[n] != wire.ModePrecopy {
						g.mayBeRefused(to(modes[n]))
						continue
					}
					g.mustMigrate(to(modes[n]))
				}
				g.mustAsk()
			})
		}
	}
}

// TestPausedAndIdle: a guest before its first instruction, a paused one, and one that does next to nothing.
func TestPausedAndIdle(t *testing.T) {
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			g := build(t, vmm.Config{CPUs: 2}, vmm.BootFiles{Kernel: "builtin:dirty", Cmdline: "pages=64 rate=1 vcpus=2 progress=0"})
			if _, err := g.migrate(to(mode)); err != nil {
				t.Fatal(err)
			}
			if s := g.m.Status(); s != vmm.Paused {
				t.Fatalf("a guest that was never started is %v after a migration", s)
			}
			g.resume()
			if _, err := g.line(0, "dirty ready"); err != nil {
				t.Fatal(err)
			}
			g.mustMigrate(to(mode)) // idle
			g.pause()
			if _, err := g.migrate(to(mode)); err != nil {
				t.Fatal(err)
			}
			if s := g.m.Status(); s != vmm.Paused {
				t.Fatalf("a paused guest is %v after a migration", s)
			}
			if err := g.judge(); err != nil {
				t.Fatal(err)
			}
			g.resume()
			g.goForward(1)
			g.mustAsk()
		})
	}
}

// TestCancelAndRetry cancels at an instant that the seed chooses, and tries again in another mode. Until the commit
// the guest goes on at the source, afterwards at the destination.
func TestCancelAndRetry(t *testing.T) {
	rng := seeded(t)
	g := boot(t, vmm.Config{CPUs: 2}, "pages=512 vcpus=2 rate=100000 progress=0")
	cancelled := map[string]int{}
	tries := 15
	if slow() {
		tries = 4
	}
	for range tries {
		p := to(modes[rng.IntN(len(modes))])
		p.opts.MaxBandwidthBytesPerS = 32 << 20 // so that there is something to cancel
		p.opts.Streams = 1 + rng.IntN(4)
		at, phase := 1+rng.IntN(8), ""
		p.progress = func(now migration.Progress, cancel context.CancelCauseFunc) {
			if at--; at == 0 {
				phase = fmt.Sprintf("%s, round %d", now.Phase, now.Round)
				cancel(nil)
			}
		}
		r, err := g.migrate(p)
		if err != nil {
			if r.Status != migration.StatusCancelled {
				t.Fatalf("%v, cancelled in %s: %s: %v", p, phase, r.Status, err)
			}
			cancelled[phase]++
		}
		if err := g.arrived(); err != nil {
			t.Fatalf("%v, cancelled in %s: %v", p, phase, err)
		}
		g.goForward(500)
		g.mustMigrate(to(modes[rng.IntN(len(modes))]))
	}
	g.mustAsk()
	if len(cancelled) == 0 && !slow() {
		t.Error("nothing was ever cancelled")
	}
	t.Logf("cancelled in %v", cancelled)
}

// TestRefused: a destination that does not want the machine says so before anything has happened to it.
func TestRefused(t *testing.T) {
	unwanted := errors.New("not of the shape that is wanted here")
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			g := boot(t, vmm.Config{CPUs: 1}, "pages=64 rate=10000 progress=0")
			p := to(mode)
			p.local.Accept = func(vmm.Config) error { return unwanted }
			r, err := g.migrate(p)
			var refused *migration.RefusedError
			if !errors.As(err, &refused) || r.Status != migration.StatusFailed || len(r.Rounds) > 0 || r.DowntimeMS != 0 {
				t.Fatalf("%v, %+v", err, r)
			}
			if s := g.m.Status(); s != vmm.Running {
				t.Fatalf("the guest is %v", s)
			}
			g.goForward(100)
			g.mustMigrate(to(mode)) // elsewhere
			g.mustAsk()
		})
	}
}
