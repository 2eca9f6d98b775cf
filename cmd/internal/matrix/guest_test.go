package matrix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/images/dirtycheck"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// hangGuard only ends a test that hangs; no result depends on it.
const hangGuard = 3 * time.Minute

// slow reports whether each migration counts: under emulation, or when the user is in a hurry.
func slow() bool { return testing.Short() || os.Getenv("FINELINE_TIER") == "svm" }

// guest is a builtin:dirty and the machine that it is in.
type guest struct {
	t     *testing.T
	ctx   context.Context // ends only what hangs
	m     *vmm.Machine
	out   *vmmtest.SerialLog // what it says, wherever it runs
	steps uint64             // that it had done when it was looked at last
	trips uint64             // names the journals and sockets
	id    string
	dir   string
}

// boot starts a guest and returns when it writes.
func boot(t *testing.T, cfg vmm.Config, cmdline string) *guest {
	t.Helper()
	g := build(t, cfg, vmm.BootFiles{Kernel: vmm.BuiltinPrefix + "dirty", Cmdline: cmdline})
	g.resume()
	if _, err := g.line(0, "dirty ready"); err != nil {
		t.Fatal(err)
	}
	return g
}

// build makes the machine, with the guest in it before its first instruction.
func build(t *testing.T, cfg vmm.Config, files vmm.BootFiles) *guest {
	t.Helper()
	vmmtest.NeedKVM(t)
	ctx, cancel := context.WithTimeout(context.Background(), hangGuard)
	t.Cleanup(cancel)
	g := &guest{t: t, ctx: ctx, out: &vmmtest.SerialLog{}, id: "traveller"}
	var err error
	if g.dir, err = os.MkdirTemp("", "fl"); err != nil { // short: a Unix socket's path has 107 bytes
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(g.dir) })
	if cfg.CPUs == 0 {
		cfg.CPUs = 1
	}
	if cfg.MemoryBytes == 0 {
		cfg.MemoryBytes = 16 << 20
	}
	cfg.CPUModel, cfg.SerialOut, cfg.Boot = vmm.CPUHost, g.out, files
	if g.m, err = vmm.New(cfg); errors.Is(err, memory.ErrNoHugePages) || errors.Is(err, memory.ErrBeyondHost) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.close(g.m) })
	if err := g.m.Boot(); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *guest) close(m *vmm.Machine) {
	if err := m.Close(); err != nil {
		g.t.Errorf("closing a machine: %v", err)
	}
}

func (g *guest) resume() {
	g.t.Helper()
	if err := g.m.Resume(); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) pause() {
	g.t.Helper()
	if err := g.m.Pause(); err != nil {
		g.t.Fatal(err)
	}
}

// say feeds the guest's serial port. For any goroutine.
func (g *guest) say(command string) error { return g.m.Feed(g.ctx, []byte(command)) }

// line waits for a whole line of the guest's that begins with prefix, behind the first skip bytes.
func (g *guest) line(skip int, prefix string) (line string, err error) {
	_, err = g.out.Await(g.ctx, func(text string) bool {
		for line = range strings.Lines(text[skip:]) {
			if strings.HasPrefix(line, prefix) && strings.HasSuffix(line, "\n") {
				return true
			}
		}
		return false
	})
	return strings.TrimSpace(line), err
}

// hasSaid waits for all that the guest has ever said to be this: each byte must arrive once.
func (g *guest) hasSaid(want string) error {
	text, err := g.out.Await(g.ctx, func(text string) bool { return len(text) >= len(want) })
	if err == nil && text != want {
		err = fmt.Errorf("the guest says %q, want %q", text, want)
	}
	return err
}

// must ends the test if the error is one: for the test's own goroutine.
func (g *guest) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// goForward returns when a running guest has done so many steps more. It looks from outside.
func (g *guest) goForward(steps uint64) {
	g.t.Helper()
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	var first uint64
	for began := false; ; began = true {
		s, err := dirtycheck.ReadState(g.m.Memory())
		if err != nil {
			g.t.Fatal(err)
		}
		if !began {
			first = s.Steps()
		}
		if s.Steps() >= first+steps {
			return
		}
		select {
		case <-tick.C:
		case <-g.ctx.Done():
			g.t.Fatalf("the guest stands still at step %d", s.Steps())
		}
	}
}

// judge checks a paused guest from outside.
func (g *guest) judge() error {
	r, err := dirtycheck.Check(g.m.Memory(), 3)
	if err != nil {
		return err
	}
	switch now := r.Steps(); {
	case r.Mismatches > 0:
		return fmt.Errorf("%d mismatches after %d steps: %v", r.Mismatches, now, r.Details)
	case r.GuestMismatches() > 0:
		return fmt.Errorf("the guest itself found %d lines wrong", r.GuestMismatches())
	case now < g.steps:
		return fmt.Errorf("the guest went from step %d back to %d", g.steps, now)
	default:
		g.steps = now
	}
	return nil
}

// ask has a running guest check all its memory.
func (g *guest) ask() error {
	skip := len(g.out.String())
	if err := g.say("c"); err != nil {
		return err
	}
	line, err := g.line(skip, "check ")
	if err != nil {
		return err
	}
	var steps, mismatches uint64
	if _, err := fmt.Sscanf(line, "check steps=%d mismatches=%d", &steps, &mismatches); err != nil {
		return fmt.Errorf("%w: %q", err, line)
	}
	if mismatches != 0 {
		return fmt.Errorf("the guest says: %s", line)
	}
	return nil
}

// compare looks for bytes in which two memories differ, at an instant at which nothing writes to either.
func compare(a, b *memory.Guest) error {
	var errs []error
	mine, yours := make([]byte, memory.PageSize), make([]byte, memory.PageSize)
	wrong := 0
	look := func(gpa memory.GPA) bool {
		if err := errors.Join(a.ReadAt(gpa, mine), b.ReadAt(gpa, yours)); err != nil {
			errs = append(errs, err)
			return false
		}
		if !bytes.Equal(mine, yours) {
			if wrong++; wrong <= 3 {
				errs = append(errs, fmt.Errorf("page %#x differs: %s", uint64(gpa), firstDifference(mine, yours)))
			}
		}
		return true
	}
	all, err := a.DataPages()
	if err != nil {
		return err
	}
	more, err := b.DataPages()
	if err != nil {
		return err
	}
	all.Range(look)
	more.Range(func(gpa memory.GPA) bool { return all.Has(gpa) || look(gpa) })
	if wrong > 3 {
		errs = append(errs, fmt.Errorf("and %d pages more", wrong-3))
	}
	return errors.Join(errs...)
}

func firstDifference(a, b []byte) string {
	lines := 0
	first := -1
	for at := 0; at < len(a); at += 64 {
		if !bytes.Equal(a[at:at+64], b[at:at+64]) {
			if lines++; first < 0 {
				first = at
			}
		}
	}
	return fmt.Sprintf("%d lines, the first at %#x: %x at the source, %x here", lines, first, a[first:first+64], b[first:first+64])
}
