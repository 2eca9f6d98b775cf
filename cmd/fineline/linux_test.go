package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/cmd/internal/process"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// linuxHangGuard only ends a test that hangs: Linux boots in an emulated machine.
const linuxHangGuard = 12 * time.Minute

// linuxHops is how often the guest changes its process.
const (
	linuxHops    = 20
	maxLinuxHops = 100 // of all tests
)

// memcheck is the conversation with the program of that name in a Linux guest, over
// the serial ports of all the processes that the guest has lived in, one after the
// other. A line may begin in one and end in the next.
type memcheck struct {
	t     *testing.T
	ports chan net.Conn // read to their end in this order
	port  net.Conn      // where the guest is now
	lines *bufio.Scanner
	last  status
	anew  bool // the next line may have any number
}

// status is a line of memcheck's.
type status struct {
	seq, rounds, errors, jobs uint64
	uptime, realtime          float64
}

// newMemcheck ends the conversation when ctx ends.
func newMemcheck(ctx context.Context, t *testing.T) *memcheck {
	r, w := io.Pipe()
	stop := context.AfterFunc(ctx, func() { _ = r.CloseWithError(context.Cause(ctx)) })
	t.Cleanup(func() { stop() })
	m := &memcheck{t: t, ports: make(chan net.Conn, maxLinuxHops+1), lines: bufio.NewScanner(r)}
	go func() {
		for port := range m.ports {
			_, _ = io.Copy(w, port) // until the process has ended
		}
		_ = w.Close()
	}()
	t.Cleanup(func() { _ = r.Close() })
	return m
}

// arriveAt makes the guest's serial port the one that a process serves at path.
func (m *memcheck) arriveAt(path string) {
	m.t.Helper()
	port, err := net.Dial("unix", path)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = port.Close() })
	m.port = port
	m.ports <- port
}

func (m *memcheck) say(command string) {
	m.t.Helper()
	if _, err := io.WriteString(m.port, command+"\n"); err != nil {
		m.t.Fatal(err)
	}
}

// next returns the next line of memcheck's, which must be the one after the last.
func (m *memcheck) next() string {
	m.t.Helper()
	for m.lines.Scan() {
		text, ok := strings.CutPrefix(m.lines.Text(), "memcheck ")
		if !ok {
			continue // the kernel's
		}
		var seq uint64
		if _, err := fmt.Sscanf(text, "seq=%d", &seq); err != nil {
			m.t.Fatalf("guest: %q", m.lines.Text())
		}
		if m.anew {
			m.last.seq, m.anew = seq-1, false
		}
		if seq != m.last.seq+1 {
			m.t.Fatalf("line %d follows line %d: serial output was lost or doubled", seq, m.last.seq)
		}
		m.last.seq = seq
		return text
	}
	m.t.Fatalf("the serial port ended: %v", m.lines.Err())
	return ""
}

// status reads the next line, which must be a status, and a good one.
func (m *memcheck) status() status {
	m.t.Helper()
	text := m.next()
	var s status
	var gap int
	if _, err := fmt.Sscanf(text, "seq=%d rounds=%d errors=%d uptime=%g realtime=%g maxgap_ms=%d jobs=%d",
		&s.seq, &s.rounds, &s.errors, &s.uptime, &s.realtime, &gap, &s.jobs); err != nil {
		m.t.Fatalf("guest: %q", text)
	}
	if s.errors != 0 {
		m.t.Fatalf("guest memory, time or work is wrong: %q", text)
	}
	if s.uptime < m.last.uptime || s.realtime < m.last.realtime {
		m.t.Fatalf("time went back: %+v after %+v", s, m.last)
	}
	m.last = s
	return s
}

// progress reads status lines until the guest has finished further rounds.
func (m *memcheck) progress() {
	m.t.Helper()
	for from := m.last.rounds; m.status().rounds == from; {
	}
}

// jobDone reads status lines until the guest has finished another job.
func (m *memcheck) jobDone() {
	m.t.Helper()
	for from := m.last.jobs; m.status().jobs == from; {
	}
}

// wantQuiet ends the status lines and fails if the guest's kernel has complained.
func (m *memcheck) wantQuiet() {
	m.t.Helper()
	m.say("every 0s")
	m.say("warnings")
	for {
		if text := m.next(); strings.Contains(text, "warnings=") {
			if !strings.HasSuffix(text, "warnings=0") {
				m.t.Errorf("the guest's kernel complains: %s, then %s", text, m.next())
			}
			return
		}
	}
}

// startLinux runs a process for the guest, or for the guest to arrive in.
func startLinux(ctx context.Context, t *testing.T, dir, name string, args ...string) *process.VMM {
	t.Helper()
	v, err := process.Start(ctx, program(t), dir, name, []string{"TMPDIR=" + dir},
		append([]string{"--serial", "unix:" + filepath.Join(dir, name+".tty")}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = v.Kill() // has ended already if all went well
		if t.Failed() {
			t.Logf("%s logged:\n%s", name, v.Stderr())
		}
	})
	return v
}

// ended waits for the end of a process, and returns how it ended.
func ended(ctx context.Context, v *process.VMM) error {
	select {
	case <-v.Exited():
		return v.Err()
	case <-ctx.Done():
		return fmt.Errorf("it does not end: %w", ctx.Err())
	}
}

// traveller is stock Linux, in which memcheck writes and checks memory, on its way from process to process.
type traveller struct {
	*memcheck
	ctx  context.Context // ends only what hangs
	dir  string
	vmm  *process.VMM // where the guest is
	hops int
}

// bootTraveller returns when memcheck makes progress. The options are memcheck's.
func bootTraveller(ctx context.Context, t *testing.T, memory, options string) *traveller {
	t.Helper()
	image := vmmtest.NeedLinux(t)
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g := &traveller{memcheck: newMemcheck(ctx, t), ctx: ctx, dir: dir}
	g.vmm = startLinux(ctx, t, dir, "p0", "--cpus", "2", "--memory", memory,
		"--kernel", filepath.Join(image, "vmlinux"), "--initrd", filepath.Join(image, "initramfs.cpio"),
		"--cmdline", "console=ttyS0 fineline.test=memcheck "+options+" "+os.Getenv("FINELINE_LINUX_CMDLINE"))
	g.arriveAt(filepath.Join(dir, "p0.tty"))
	g.progress()
	return g
}

// hop moves the guest to a process of its own, and returns when memcheck makes progress there.
func (g *traveller) hop(r api.MigrationRequest) *migration.Result {
	g.t.Helper()
	g.hops++
	name := fmt.Sprintf("p%d", g.hops)
	r.DestinationURL = "unix:" + filepath.Join(g.dir, name+".mig")
	next := startLinux(g.ctx, g.t, g.dir, name, "--incoming", r.DestinationURL)
	result, err := g.vmm.Migrate(g.ctx, r, ignoreProgress)
	if err != nil || result.Status != migration.StatusCompleted {
		g.t.Fatalf("hop %d, %+v: %v, %+v", g.hops, r, err, result)
	}
	g.arriveAt(filepath.Join(g.dir, name+".tty"))
	if err := ended(g.ctx, g.vmm); err != nil {
		g.t.Fatalf("hop %d, %+v: the source: %v", g.hops, r, err)
	}
	g.vmm = next
	g.progress()
	return result
}

// powerOff fails if the guest's kernel has complained, or its last process does.
func (g *traveller) powerOff() {
	g.t.Helper()
	g.wantQuiet()
	g.say("poweroff")
	if err := ended(g.ctx, g.vmm); err != nil {
		g.t.Errorf("the last process: %v", err)
	}
}

// TestLinuxMigrates moves stock Linux through twenty processes while a program in it
// writes and checks memory and looks at the clocks.
func TestLinuxMigrates(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), linuxHangGuard)
	defer cancel()
	guest := bootTraveller(ctx, t, "128M", "fineline.mib=4 fineline.rest=200ms")
	for hop := 1; hop <= linuxHops; hop++ {
		r := guest.hop(api.MigrationRequest{DowntimeMS: 1000})
		t.Logf("hop %d: %.0f ms, %.0f ms of downtime, %d rounds, %d pages", hop, r.TotalMS, r.DowntimeMS, len(r.Rounds), r.PagesSent)
	}
	guest.powerOff()
}
