package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/hostile"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// attackTimeout is more than any of the VMMs' own, and ends a test that hangs.
const attackTimeout = time.Minute

// maxAttackedKiB is what a VMM with a guest of 64 MiB may have had in memory at most, whatever its peer does: the
// guest, its baselines, one description and state at their caps, and the program.
const maxAttackedKiB = 256 << 10

// peakKiB is the most memory that the machine's process has had; 0 if it has ended well.
func (m *machine) peakKiB() int64 {
	var exit *exec.ExitError
	select {
	case <-m.Exited():
		if errors.As(m.Err(), &exit) {
			return exit.SysUsage().(*syscall.Rusage).Maxrss
		}
		return 0
	default:
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID()))
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(fields[0], 10, 64) // the kernel's own
	return n
}

// checkSound: it did not crash and did not eat the host's memory.
func (m *machine) checkSound() {
	m.h.t.Helper()
	if peak := m.peakKiB(); peak > maxAttackedKiB {
		m.h.t.Errorf("%s has had %d KiB in memory", m.name, peak)
	}
	if log := m.Stderr(); strings.Contains(log, "panic:") || strings.Contains(log, "goroutine ") || strings.Contains(log, "fatal error") {
		m.h.t.Errorf("%s crashed:\n%s", m.name, log)
	}
	select {
	case <-m.Exited():
		if exitCode(m.Err()) > 1 {
			m.h.t.Errorf("%s ended with %v", m.name, m.Err())
		}
	default:
	}
}

// beside runs tests beside each other, since most of the time they wait.
func beside[C any](t *testing.T, cases []C, name func(C) string, test func(*testing.T, C)) {
	const most = 4
	slots := make(chan struct{}, most)
	var running sync.WaitGroup
	for _, c := range cases {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			t.Run(name(c), func(t *testing.T) { test(t, c) })
		})
	}
	running.Wait()
}

func dialUnix(path string) hostile.Dial {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
}

func listenUnix(t *testing.T, path string) net.Listener {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func modeName(mode wire.Mode) string {
	return map[wire.Mode]string{wire.ModePrecopy: "Precopy", wire.ModePostcopy: "Postcopy", wire.ModeHybrid: "Hybrid"}[mode]
}

// meet has a real source migrate to a hostile destination, and returns what it was described, and the guest's steps before.
func meet(t *testing.T, d hostile.Destination) (src *machine, description []byte, before uint64) {
	h := newHouse(t)
	src = h.startDirty("src", "", ownershipLoad, "--memory", strconv.Itoa(hostile.MemoryBytes>>20)+"M")
	before = src.check()
	ctx, cancel := context.WithTimeout(h.ctx, attackTimeout)
	defer cancel()
	ln := listenUnix(t, h.path("evil"))
	served, played := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(served)
		description, _ = d.Serve(ctx, ln, func() { close(played) }) // how the source hangs up is its affair
	}()
	r := request("unix:" + h.path("evil"))
	r.MemoryMode, r.Local, r.KeepSource = modeName(d.Mode), d.Mode == wire.ModeLocal, d.Keep
	if d.Mode == wire.ModeHybrid {
		r.DowntimeMS, r.MaxBandwidthBytesPerSecond = 1, 1<<20 // it does not converge
	}
	migrated := make(chan struct{})
	go func() {
		defer close(migrated)
		_, _ = src.Migrate(h.ctx, r, ignoreProgress)
	}()
	if !d.Gone { // else it goes on offering the memory for as long as it lives
		<-migrated
	}
	if d.Gone || d.Keep {
		<-played
	}
	if ctx.Err() != nil {
		t.Error("the attack is not over")
	}
	cancel()
	<-served
	src.checkSound()
	if d.Gone {
		if src.phase() == api.Running.String() {
			t.Error("the guest runs at a source that was told that it runs elsewhere")
		}
		_ = src.Kill()
		<-migrated
	}
	return src, description, before
}

func TestHostileDestinations(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	name := func(d hostile.Destination) string { return d.Name }
	beside(t, hostile.Destinations(), name, func(t *testing.T, d hostile.Destination) {
		src, _, before := meet(t, d)
		if d.Keep {
			src.takeOver(d)
		}
		if d.Gone || d.Lost {
			return
		}
		src.awaitPhase(api.Running)
		if after := src.checkRuns(); after < before {
			t.Errorf("the guest went from %d steps back to %d", before, after)
		}
		src.stop()
	})
}

func TestHostileSources(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	looker := hostile.Destinations()[0]
	src, description, _ := meet(t, looker)
	src.stop()
	if len(description) == 0 {
		t.Fatal("the source described nothing")
	}
	name := func(s hostile.Source) string { return s.Name }
	beside(t, hostile.Sources(), name, func(t *testing.T, s hostile.Source) {
		h := newHouse(t)
		dst, _ := h.startIncoming("dst", "")
		ctx, cancel := context.WithTimeout(h.ctx, attackTimeout)
		defer cancel()
		err := s.Attack(ctx, dialUnix(h.path("dst.mig")), 1, description)
		if refused := err != nil && strings.Contains(err.Error(), "not accepted"); refused != s.Refused {
			t.Fatalf("refused %v: %v", refused, err)
		}
		if err != nil {
			t.Log(err)
		}
		if ctx.Err() != nil {
			t.Error("the destination did not hang up")
		}
		if s.Refused { // it waits for another machine
			dst.awaitPhase(api.Incoming)
			dst.checkSound()
			dst.stop()
			return
		}
		dst.awaitGone() // it was started for one machine, and that is lost
		dst.checkSound()
	})
}

// mischief is a plan, and the mode of the migration that it meets.
type mischief struct {
	hostile.Plan
	mode wire.Mode
}

func (m mischief) String() string { return fmt.Sprintf("%s, %s", m.mode, m.Plan) }

// mischiefs makes a plan of each deed in each mode. FINELINE_MISCHIEF is how many of each there are, and 1 by default.
func mischiefs(t *testing.T, forge bool, deeds ...hostile.Deed) []mischief {
	many, err := strconv.Atoi(os.Getenv("FINELINE_MISCHIEF"))
	if err != nil {
		many = 1
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seeds from %d", seed)
	var cases []mischief
	for range many {
		for _, mode := range []wire.Mode{wire.ModePrecopy, wire.ModePostcopy, wire.ModeHybrid} {
			for _, deed := range deeds {
				p := hostile.NewPlan(seed, mischiefFrames, forge)
				p.Deed = deed
				cases = append(cases, mischief{p, mode})
				seed++
			}
		}
	}
	return cases
}

// mischiefFrames is how many frames a migration here has at least.
const mischiefFrames = 20

// TestManInTheMiddle: one that cannot forge checksums makes a migration fail, at worst.
func TestManInTheMiddle(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	beside(t, mischiefs(t, false, hostile.Deeds()...), mischief.String, func(t *testing.T, c mischief) {
		h := newHouse(t)
		src := h.startDirty("src", "", ownershipLoad, "--memory", "64M")
		dst, _ := h.startIncoming("dst", "")
		m := hostile.NewMiddle(listenUnix(t, h.path("mid")), dialUnix(h.path("dst.mig")))
		defer m.Close()
		m.Arm(c.Plan)
		passThrough(t, src, dst, m, c.mode, request("unix:"+h.path("mid")))
	})
}

// passThrough migrates past the man in the middle. The guest is right in the end, and runs at one side.
func passThrough(t *testing.T, src, dst *machine, m *hostile.Middle, mode wire.Mode, r api.MigrationRequest) {
	before := src.check()
	src.h.watchForTwo(src, dst)
	r.MemoryMode = modeName(mode)
	result, err := src.Migrate(src.h.ctx, r, ignoreProgress)
	if did, frames := m.Done(); !did {
		t.Logf("the deed was not done in %d frames", frames)
	}
	runs, other := src, dst
	if err == nil && result.Status == migration.StatusCompleted {
		runs, other = dst, src
		src.awaitGone()
	} else {
		t.Logf("failed: %+v, %v", result, err)
		src.awaitPhase(api.Running)
		dst.awaitUnused()
	}
	runs.awaitPhase(api.Running)
	if after := runs.checkRuns(); after < before {
		t.Errorf("the guest went from %d steps back to %d", before, after)
	}
	runs.checkSound()
	other.checkSound()
	runs.stop()
}

// TestForger: a man in the middle that makes checksums anew can change what the guest is. It cannot crash, hang or
// fill a VMM.
func TestForger(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	deeds := []hostile.Deed{hostile.Flip, hostile.Repeat, hostile.Swap, hostile.Inject, hostile.Replay}
	beside(t, mischiefs(t, true, deeds...), mischief.String, func(t *testing.T, c mischief) {
		h := newHouse(t)
		src := h.startDirty("src", "", ownershipLoad, "--memory", "64M")
		dst, _ := h.startIncoming("dst", "")
		m := hostile.NewMiddle(listenUnix(t, h.path("mid")), dialUnix(h.path("dst.mig")))
		defer m.Close()
		m.Arm(c.Plan)
		r := request("unix:" + h.path("mid"))
		r.MemoryMode = modeName(c.mode)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = src.Migrate(h.ctx, r, ignoreProgress)
		}()
		select {
		case <-ended:
		case <-time.After(attackTimeout):
			t.Logf("source %q, destination %q: a forger may hold a migration up for as long as it is there", src.phase(), dst.phase())
		}
		src.checkSound()
		dst.checkSound()
		for _, side := range []*machine{src, dst} { // whatever the guest is now, its VMM does as it is told
			if err := side.Close(); err != nil && exitCode(side.Err()) < 0 {
				t.Errorf("%s: %v", side.name, err)
			}
		}
		<-ended
	})
}

// TestForgerBehindTLS: with TLS nobody can change a bit unnoticed.
func TestForgerBehindTLS(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	file := newPKI(t)
	deeds := []hostile.Deed{hostile.Flip, hostile.Drop, hostile.Repeat, hostile.Replay}
	beside(t, mischiefs(t, false, deeds...), mischief.String, func(t *testing.T, c mischief) {
		h := newHouse(t)
		src := h.startDirty("src", "", ownershipLoad, "--memory", "64M")
		to := strings.TrimPrefix(freePort(t), "tcp:")
		dst := h.start("dst", "", "--incoming", "tcp:"+to, "--tls-cert", file("dst.pem"), "--tls-key", file("dst.key"), "--tls-ca", file("ca.pem"))
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m := hostile.NewOpaque(ln, func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", to)
		})
		defer m.Close()
		m.Arm(c.Plan)
		r := request("tcp:localhost:" + strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
		r.TLSCert, r.TLSKey, r.TLSCA = file("src.pem"), file("src.key"), file("ca.pem")
		passThrough(t, src, dst, m, c.mode, r)
	})
}
