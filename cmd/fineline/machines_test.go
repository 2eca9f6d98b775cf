package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/cmd/internal/process"
	"github.com/fineline-vmm/fineline/cmd/internal/workload"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

const pollInterval = time.Millisecond

// house is a folder with the machines of one test, and their sockets and journals.
type house struct {
	t   *testing.T
	dir string
	ctx context.Context
	// plain leaves out --journal: each process has a runtime directory of its own then.
	plain bool
}

// newHouse makes the folder with a short name: a Unix socket's path has 107 bytes.
func newHouse(t *testing.T) *house {
	t.Helper()
	vmmtest.NeedKVM(t)
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), hangGuard)
	t.Cleanup(cancel)
	return &house{t: t, dir: dir, ctx: ctx}
}

func (h *house) path(name string) string { return filepath.Join(h.dir, name) }

// machine is one `fineline run`.
type machine struct {
	*process.VMM
	h      *house
	name   string
	serial *workload.Guest
}

// start runs a machine with its serial port, journal and API in the house.
func (h *house) start(name string, faults string, args ...string) *machine {
	h.t.Helper()
	args = append([]string{"--serial", "unix:" + h.path(name+".tty")}, args...)
	if !h.plain {
		args = append(args, "--journal", h.path(name+".journal"))
	}
	env := []string{"TMPDIR=" + h.dir, "XDG_RUNTIME_DIR=" + h.path(name+".run"), inject.EnvVar + "=" + faults}
	v, err := process.Start(h.ctx, program(h.t), h.dir, name, env, args...)
	if err != nil {
		h.t.Fatal(err)
	}
	m := &machine{VMM: v, h: h, name: name}
	h.t.Cleanup(func() {
		if m.serial != nil {
			_ = m.serial.Close()
		}
		_ = m.Kill() // has ended already if all went well
		if h.t.Failed() {
			h.t.Logf("%s logged:\n%s", name, m.Stderr())
		}
	})
	if m.serial, err = workload.Dial(h.ctx, h.path(name+".tty")); err != nil {
		h.t.Fatal(err)
	}
	return m
}

// startDirty runs builtin:dirty and returns when it writes.
func (h *house) startDirty(name, faults, cmdline string, args ...string) *machine {
	h.t.Helper()
	m := h.start(name, faults, append([]string{"--kernel", "builtin:dirty", "--cmdline", cmdline}, args...)...)
	if err := m.serial.AwaitReady(h.ctx); err != nil {
		h.t.Fatalf("%s: %v\n%s", name, err, m.Stderr())
	}
	return m
}

// startIncoming runs a destination and returns when it listens.
func (h *house) startIncoming(name, faults string, args ...string) (*machine, string) {
	h.t.Helper()
	to := "unix:" + h.path(name+".mig")
	return h.start(name, faults, append([]string{"--incoming", to}, args...)...), to
}

// eventually waits for something that other processes make true.
func (h *house) eventually(what string, ok func() bool) {
	h.t.Helper()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-h.ctx.Done():
			h.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// request is a migration that converges whatever the guest does.
func request(to string) api.MigrationRequest {
	return api.MigrationRequest{DestinationURL: to, DowntimeMS: 500, TimeoutS: 60}
}

func ignoreProgress(migration.Progress) {}

// move migrates and insists on success.
func (m *machine) move(to string) *migration.Result {
	m.h.t.Helper()
	return m.moveAs(request(to))
}

func (m *machine) moveAs(request api.MigrationRequest) *migration.Result {
	m.h.t.Helper()
	r, err := m.Migrate(m.h.ctx, request, ignoreProgress)
	if err != nil {
		m.h.t.Fatalf("%s: %v\n%s", m.name, err, m.Stderr())
	}
	if r.Status != migration.StatusCompleted {
		m.h.t.Fatalf("%s: %s: %s", m.name, r.Status, r.Error)
	}
	return r
}

// phase is the machine's, or "" once its process does not answer.
func (m *machine) phase() string {
	info, err := m.API.Info(m.h.ctx)
	if err != nil {
		return ""
	}
	return info.Phase
}

func (m *machine) awaitPhase(want api.Phase) {
	m.h.t.Helper()
	m.h.eventually(fmt.Sprintf("%s is %s", m.name, want), func() bool {
		select {
		case <-m.Exited():
			m.h.t.Fatalf("%s has ended (%v), want %s\n%s", m.name, m.Err(), want, m.Stderr())
		default:
		}
		return m.phase() == want.String()
	})
}

// awaitExit returns the exit code, or -1 for a process that was killed.
func (m *machine) awaitExit() int {
	m.h.t.Helper()
	select {
	case <-m.Exited():
	case <-m.h.ctx.Done():
		m.h.t.Fatalf("%s does not end; its phase is %q\n%s", m.name, m.phase(), m.Stderr())
	}
	return exitCode(m.Err())
}

// awaitGone waits for the exit of a machine that must not run the guest.
func (m *machine) awaitGone() {
	m.h.t.Helper()
	m.h.eventually(m.name+" ends", func() bool {
		select {
		case <-m.Exited():
			return true
		default:
		}
		if m.phase() == api.Running.String() {
			m.h.t.Fatalf("%s runs the guest and must not\n%s", m.name, m.Stderr())
		}
		return false
	})
}

// awaitUnused waits for the end of a destination that must not run the guest. One that has accepted
// nothing waits for another machine, and is stopped.
func (m *machine) awaitUnused() {
	m.h.t.Helper()
	if m.lastPhase() == "" {
		_ = m.API.Stop(m.h.ctx) // refused if it has just ended, or just accepted
	}
	m.awaitGone()
}

func exitCode(err error) int {
	var exit interface{ ExitCode() int }
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// check lets the guest compare all its memory, and returns its steps.
func (m *machine) check() uint64 {
	m.h.t.Helper()
	c, err := m.serial.Check(m.h.ctx)
	if err != nil {
		m.h.t.Fatalf("%s: %v\n%s", m.name, err, m.Stderr())
	}
	if c.Mismatches != 0 {
		m.h.t.Fatalf("%s: %d mismatches after %d steps; first %s", m.name, c.Mismatches, c.Steps, c.First)
	}
	return c.Steps
}

// checkRuns checks the guest's memory twice and that it goes forward between.
func (m *machine) checkRuns() uint64 {
	m.h.t.Helper()
	first := m.check()
	var last uint64
	m.h.eventually(m.name+" goes forward", func() bool {
		last = m.check()
		return last > first
	})
	return last
}

// goesOn resumes a guest that has come here paused, after so many steps.
func (m *machine) goesOn(steps uint64) {
	m.h.t.Helper()
	m.awaitPhase(api.Paused)
	if err := m.API.Resume(m.h.ctx); err != nil {
		m.h.t.Fatal(err)
	}
	if now := m.checkRuns(); now < steps {
		m.h.t.Errorf("the guest went from %d steps back to %d", steps, now)
	}
}

// stop ends the machine as a user does and looks at what it leaves.
func (m *machine) stop() {
	m.h.t.Helper()
	if err := m.API.Stop(m.h.ctx); err != nil {
		m.h.t.Fatalf("stop %s: %v", m.name, err)
	}
	if code := m.awaitExit(); code != 0 {
		m.h.t.Errorf("%s ended with %d after a stop\n%s", m.name, code, m.Stderr())
	}
	m.checkLeftovers()
}

// checkLeftovers: a process that was not killed removes its sockets.
func (m *machine) checkLeftovers() {
	m.h.t.Helper()
	entries, err := os.ReadDir(m.h.dir)
	if err != nil {
		m.h.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), m.name+".") && e.Type() == fs.ModeSocket {
			m.h.t.Errorf("%s left %s behind", m.name, e.Name())
		}
		if e.IsDir() && !m.h.plain { // else the test says what stays
			inside, _ := os.ReadDir(m.h.path(e.Name()))
			if len(inside) != 0 {
				m.h.t.Errorf("left behind in %s: %v", e.Name(), inside)
			}
		}
	}
}

// lastPhase is what a machine's journal ends with, "" if it has none.
func (m *machine) lastPhase() journal.Phase {
	m.h.t.Helper()
	records, err := journal.ReadFile(m.h.path(m.name + ".journal"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(records) == 0 {
		return ""
	}
	if err != nil {
		m.h.t.Fatal(err)
	}
	return records[len(records)-1].Phase
}
