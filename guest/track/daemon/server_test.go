package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/guest/track"
	"github.com/fineline-vmm/fineline/guest/track/driver"
	"github.com/fineline-vmm/fineline/guest/track/procmem"
	"github.com/fineline-vmm/fineline/guest/track/protocol"
	"github.com/fineline-vmm/fineline/guest/track/tracktest"
)

const heap = 0x550000000000

// rig is a daemon over a model of the device. Who connects is who the rig says.
type rig struct {
	t       *testing.T
	machine *tracktest.Machine
	socket  string

	mu        sync.Mutex
	peer      Peer
	processes map[int]*tracktest.Process
}

func newRig(t *testing.T, limits Limits) *rig {
	t.Helper()
	r := &rig{t: t, machine: tracktest.NewMachine(), socket: filepath.Join(t.TempDir(), "s"), processes: map[int]*tracktest.Process{}}
	d, err := driver.Open(r.machine, r.machine.DMA(driver.DMAPages))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{
		System:   track.NewDevice(d, r.open),
		Limits:   limits,
		Identify: func(*net.UnixConn) (Peer, error) { r.mu.Lock(); defer r.mu.Unlock(); return r.peer, nil },
		Log:      t.Logf,
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := r.machine.Contexts(); n != 0 {
			t.Errorf("%d contexts are left", n)
		}
		for pid, p := range r.processes {
			if n := p.Opened(); n != 0 {
				t.Errorf("process %d is still open %d times", pid, n)
			}
		}
	})
	return r
}

func (r *rig) open(pid int) (track.AddressSpace, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.processes[pid]; p != nil {
		return p.Open(), nil
	}
	return nil, procmem.ErrGone
}

// process makes a process with pages at heap.
func (r *rig) process(pid int, pages uint64) *tracktest.Process {
	p := tracktest.NewProcess(r.machine, procmem.Mapping{Start: heap, End: heap + pages*4096, Writable: true})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.processes[pid] = p
	return p
}

// dialAs connects as a user's process. A first request makes sure that the daemon has asked who it is.
func (r *rig) dialAs(pid int, uid uint32, check error) *track.Client {
	r.t.Helper()
	r.mu.Lock()
	r.peer = Peer{PID: pid, UID: uid, Check: func() error { return check }, Close: func() error { return nil }}
	r.mu.Unlock()
	c, err := track.Dial(r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_, _ = c.List()
	return c
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// TestAProgramTracksItself, in reports of several parts.
func TestAProgramTracksItself(t *testing.T) {
	r := newRig(t, DefaultLimits)
	const pages = protocol.MaxPages*2 + 5
	p := r.process(7, pages)
	c := r.dialAs(7, 1000, nil)
	s := must(c.Process(0, track.Options{CountBytes: true}))(t)
	ok(t, s.Add(track.Range{Address: heap, Bytes: pages * 4096}))
	ok(t, s.Start())
	p.Do(func(s *tracktest.Space) {
		for i := range uint64(pages) {
			s.Store(heap+i*4096+i%64*64, []byte{1, 2})
		}
	})
	report := must(s.Harvest())(t)
	if len(report.Pages) != pages || report.Present != pages {
		t.Fatalf("%d pages, %d present", len(report.Pages), report.Present)
	}
	for i, got := range report.Pages {
		if want := (track.Page{Address: heap + uint64(i)*4096, Lines: 1 << (i % 64), ChangedBytes: 2, Flags: track.Counted}); got != want {
			t.Fatalf("page %d: %+v, want %+v", i, got, want)
		}
	}
	ok(t, s.Remove(track.Range{Address: heap, Bytes: pages * 4096}))
	ok(t, s.Stop())
	ok(t, s.Close())
	wants(t, "harvest of a closed session", func() error { _, err := s.Harvest(); return err }(), track.ErrClosed)
}

// TestPermissions: a user sees nothing of others, not even that they are tracked; root sees all.
func TestPermissions(t *testing.T) {
	r := newRig(t, DefaultLimits)
	victim := r.process(7, 1)
	r.process(8, 1)
	root, user := r.dialAs(1, 0, nil), r.dialAs(8, 1000, nil)
	hidden := must(root.Process(7, track.Options{Follow: track.FollowWritable}))(t)
	ok(t, hidden.Start())

	_, err := user.Process(7, track.Options{})
	wants(t, "another process", err, track.ErrPermission)
	_, err = user.Process(8, track.Options{})
	wants(t, "the own process by number", err, track.ErrPermission)
	_, err = user.Process(0, track.Options{Follow: track.FollowPrivate})
	wants(t, "all of a process", err, track.ErrPermission)
	_, err = user.List()
	wants(t, "list", err, track.ErrPermission)

	all := must(root.List())(t)
	if len(all) != 1 || all[0].PID != 7 || all[0].UID != 0 || !all[0].Started {
		t.Errorf("root's list: %+v", all)
	}
	// Numbers of others' sessions open nothing.
	raw := r.raw(8, 1000)
	for _, op := range []string{"add", "start", "harvest", "more", "stop", "close", "remove"} {
		if got := raw.ask(fmt.Sprintf(`{"id":5,"op":%q,"session":%d}`, op, all[0].Session)); got.Error == nil || got.Error.Code != protocol.State || got.ID != 5 {
			t.Errorf("%s of root's session: %+v", op, got)
		}
	}
	victim.Do(func(s *tracktest.Space) { s.Store(heap, []byte{1}) })
	if report := must(hidden.Harvest())(t); len(report.Pages) != 1 {
		t.Errorf("root's harvest: %+v", report)
	}
	if got := must(root.List())(t); len(got) != 1 {
		t.Errorf("%d sessions after refusals", len(got))
	}
}

// TestIdentity: what is not the process that connected is not tracked.
func TestIdentity(t *testing.T) {
	r := newRig(t, DefaultLimits)
	r.process(7, 1)
	for _, refusal := range []error{track.ErrGone, track.ErrPermission} {
		_, err := r.dialAs(7, 1000, refusal).Process(0, track.Options{})
		wants(t, "open", err, refusal)
	}
}

// TestLimits: one user's appetite is bounded, and does not touch another's.
func TestLimits(t *testing.T) {
	limits := Limits{Connections: 5, UserConnections: 2, UserSessions: 3, UserBytes: 16 * 4096, Answer: time.Minute}
	r := newRig(t, limits)
	r.process(7, 64)
	r.process(8, 64)
	a, b := r.dialAs(7, 1000, nil), r.dialAs(7, 1000, nil)
	_, err := r.dialAs(7, 1000, nil).Process(0, track.Options{})
	wants(t, "a third connection", err, track.ErrLimit)

	s := must(a.Process(0, track.Options{}))(t)
	must(a.Process(0, track.Options{}))(t)
	s3 := must(b.Process(0, track.Options{}))(t)
	_, err = b.Process(0, track.Options{})
	wants(t, "a fourth session", err, track.ErrLimit)

	ok(t, s.Add(track.Range{Address: heap, Bytes: 10 * 4096}))
	ok(t, s.Add(track.Range{Address: heap + 4096, Bytes: 10 * 4096})) // one page more
	wants(t, "too many bytes", s3.Add(track.Range{Address: heap, Bytes: 6 * 4096}), track.ErrLimit)
	wants(t, "far too many", s3.Add(track.Range{Address: heap, Bytes: 1 << 55}), track.ErrLimit)
	wants(t, "not mapped", s3.Add(track.Range{Address: heap + 1<<30, Bytes: 4096}), track.ErrNotMapped)
	ok(t, s3.Add(track.Range{Address: heap, Bytes: 5 * 4096}))
	ok(t, s.Remove(track.Range{Address: heap, Bytes: 4096}))
	ok(t, s3.Add(track.Range{Address: heap + 5*4096, Bytes: 4096}))

	other := must(r.dialAs(8, 1001, nil).Process(0, track.Options{}))(t)
	ok(t, other.Add(track.Range{Address: heap, Bytes: 16 * 4096}))

	// What ends gives back.
	ok(t, s.Close())
	ok(t, s3.Add(track.Range{Address: heap, Bytes: 16 * 4096}))
	ok(t, b.Close())
	must(a.Process(0, track.Options{}))(t)

	root := r.dialAs(1, 0, nil)
	ok(t, must(root.Process(7, track.Options{}))(t).Add(track.Range{Address: heap, Bytes: 64 * 4096}))
}

// raw is a connection for what no client sends.
type raw struct {
	t *testing.T
	net.Conn
	reader *protocol.Reader
}

func (r *rig) raw(pid int, uid uint32) *raw {
	r.t.Helper()
	r.mu.Lock()
	r.peer = Peer{PID: pid, UID: uid, Check: func() error { return nil }, Close: func() error { return nil }}
	r.mu.Unlock()
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return &raw{r.t, conn, protocol.NewReader(conn, protocol.MaxResponseBytes)}
}

func (r *raw) ask(line string) (got protocol.Response) {
	r.t.Helper()
	if _, err := io.WriteString(r, line+"\n"); err != nil {
		r.t.Fatal(err)
	}
	if err := r.reader.Next(&got); err != nil {
		r.t.Fatal(err)
	}
	return got
}

// TestMisbehaviour: bad requests are refused, bad lines end the connection, and others go on.
func TestMisbehaviour(t *testing.T) {
	r := newRig(t, DefaultLimits)
	p := r.process(7, 4)
	good := must(r.dialAs(7, 1000, nil).Process(0, track.Options{}))(t)
	ok(t, good.Add(track.Range{Address: heap, Bytes: 4096}))
	ok(t, good.Start())

	bad := r.raw(7, 1000)
	for line, want := range map[string]protocol.Code{
		`{"id":1,"op":"format"}`:                                     protocol.State,
		`{"id":1}`:                                                   protocol.State,
		`{"id":1,"op":"open","follow":9}`:                            protocol.BadRequest,
		`{"id":1,"op":"open","mode":77}`:                             protocol.Failed,
		`{"id":1,"op":"open","pid":-5}`:                              protocol.Permission,
		`{"id":1,"op":"close","session":0}`:                          protocol.State,
		`{"id":1,"op":"add","session":9,"ranges":[{"address":"0"}]}`: protocol.State,
	} {
		if got := bad.ask(line); got.Error == nil || got.Error.Code != want || got.ID != 1 {
			t.Errorf("%s: %+v", line, got)
		}
	}
	opened := bad.ask(`{"id":2,"op":"open"}`)
	session := func(rest string) protocol.Response {
		return bad.ask(fmt.Sprintf(`{"id":3,"session":%d,%s}`, opened.Session, rest))
	}
	for rest, want := range map[string]protocol.Code{
		`"op":"harvest"`: protocol.State, `"op":"more"`: protocol.State, `"op":"stop"`: protocol.State, `"op":"dance"`: protocol.BadRequest,
		`"op":"add","ranges":[{"address":"ffffffffffffffff","bytes":"ffffffffffffffff"}]`: protocol.BadRange,
	} {
		if got := session(rest); got.Error == nil || got.Error.Code != want {
			t.Errorf("%s: %+v", rest, got)
		}
	}
	if got := bad.ask("no JSON"); got.Error == nil || got.Error.Code != protocol.BadRequest {
		t.Errorf("text: %+v", got)
	}
	if err := bad.reader.Next(new(protocol.Response)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection after text: %v", err)
	}
	long := r.raw(7, 1000)
	go func() { _, _ = io.WriteString(long, strings.Repeat("x", 2*protocol.MaxRequestBytes)) }()
	var got protocol.Response
	if err := long.reader.Next(&got); err == nil && got.Error == nil {
		t.Errorf("a long line: %+v", got)
	}

	p.Do(func(s *tracktest.Space) { s.Store(heap, []byte{1}) })
	if report := must(good.Harvest())(t); len(report.Pages) != 1 {
		t.Errorf("the well-behaved client: %+v", report)
	}
}

// TestASlowReaderLosesItsConnection, not the daemon its time.
func TestASlowReaderLosesItsConnection(t *testing.T) {
	limits := DefaultLimits
	limits.Answer = 10 * time.Millisecond
	r := newRig(t, limits)
	r.process(7, 1)
	slow := r.raw(7, 1000)
	line := `{"id":1,"op":"` + strings.Repeat("x", 1000) + `"}` + "\n"
	for {
		if _, err := io.WriteString(slow, line); err != nil {
			return // the daemon has hung up
		}
	}
}

// TestTheEndOfAProcess is told, and its session can be closed.
func TestTheEndOfAProcess(t *testing.T) {
	r := newRig(t, DefaultLimits)
	p := r.process(7, 1)
	s := must(r.dialAs(1, 0, nil).Process(7, track.Options{Follow: track.FollowWritable}))(t)
	ok(t, s.Start())
	p.End()
	_, err := s.Harvest()
	wants(t, "harvest", err, track.ErrGone)
	ok(t, s.Close())
}

// FuzzConnection sends any bytes to a daemon as root, who may do most, and as a user.
func FuzzConnection(f *testing.F) {
	f.Add(true, []byte(`{"id":1,"op":"open","pid":7,"follow":2}`+"\n"+`{"id":2,"op":"start","session":1}`+"\n"+`{"id":3,"op":"harvest","session":1}`+"\n"))
	f.Add(false, []byte(`{"id":1,"op":"open"}`+"\n"+`{"id":2,"op":"add","session":1,"ranges":[{"address":"550000000000","bytes":"1000"}]}`+"\n"))
	f.Fuzz(func(t *testing.T, asRoot bool, data []byte) {
		r := newRig(t, DefaultLimits)
		r.process(7, 2)
		uid := uint32(1000)
		if asRoot {
			uid = 0
		}
		c := r.raw(7, uid)
		_, _ = c.Write(data)
		_ = c.Conn.(*net.UnixConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
}
