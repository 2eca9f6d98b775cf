package postcopy

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// fakeMemory is a guest's memory at the destination with absent pages, whose guest is the test: touch waits for
// a page as a vCPU does. It checks that a page is never filled twice.
type fakeMemory struct {
	guest *memory.Guest // its content

	mu      sync.Mutex
	absent  *pageBits
	left    uint64
	waiters map[memory.GPA]chan struct{} // closed when the page is there
	faults  chan memory.GPA
	fills   *pageBits
}

func newFakeMemory(guest *memory.Guest, absent *memory.PageSet) *fakeMemory {
	return &fakeMemory{
		guest: guest, absent: pageBitsOf(absent), left: absent.Len(), waiters: map[memory.GPA]chan struct{}{},
		faults: make(chan memory.GPA, guest.Pages()), fills: newPageBits(absent),
	}
}

func (m *fakeMemory) Next(ctx context.Context) (memory.GPA, error) {
	select {
	case gpa := <-m.faults:
		return gpa, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Tell does nothing: what is waited for comes by Next.
func (m *fakeMemory) Tell(func(memory.GPA)) {}

func (m *fakeMemory) Fill(gpa memory.GPA, fn func(page []byte) error) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.absent.has(pageNumber(gpa)) {
		return false, nil
	}
	var page [memory.PageSize]byte
	if err := m.guest.ReadAt(gpa, page[:]); err != nil {
		return false, err
	}
	if err := fn(page[:]); err != nil {
		return false, err
	}
	if err := m.guest.WriteAt(gpa, page[:]); err != nil {
		return false, err
	}
	m.absent.take(pageNumber(gpa))
	m.left--
	if !m.fills.add(pageNumber(gpa)) {
		panic("a page was filled twice")
	}
	if ch := m.waiters[gpa]; ch != nil {
		close(ch)
		delete(m.waiters, gpa)
	}
	return true, nil
}

func (m *fakeMemory) FillRun(gpa memory.GPA, count int, fn func(i int, page []byte) error) (filled uint64, err error) {
	for i := range count {
		ok, err := m.Fill(gpa+memory.GPA(i)*memory.PageSize, func(page []byte) error { return fn(i, page) })
		if err != nil {
			return filled, err
		}
		if ok {
			filled |= 1 << i
		}
	}
	return filled, nil
}

func (m *fakeMemory) Has(gpa memory.GPA) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.absent.has(pageNumber(gpa))
}

func (m *fakeMemory) Len() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left
}

func (m *fakeMemory) Absent() *memory.PageSet {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.guest.NewPageSet()
	for page, ok := m.absent.next(0); ok; page, ok = m.absent.next(page + 1) {
		set.Add(pageGPA(page))
	}
	return set
}

// touch waits until the page is there, or for stop, and reports whether it is.
func (m *fakeMemory) touch(gpa memory.GPA, stop <-chan struct{}) bool {
	m.mu.Lock()
	if !m.absent.has(pageNumber(gpa)) {
		m.mu.Unlock()
		return true
	}
	ch := m.waiters[gpa]
	if ch == nil {
		ch = make(chan struct{})
		m.waiters[gpa] = ch
		m.faults <- gpa
	}
	m.mu.Unlock()
	select {
	case <-ch:
		return true
	case <-stop:
		return false
	}
}

// newGuest returns memory of two regions with a hole between them.
func newGuest(t testing.TB, pages uint64) *memory.Guest {
	t.Helper()
	low := pages/3 + 1
	g, err := memory.New([]memory.Region{
		{Base: 0, SizeBytes: low * memory.PageSize},
		{Base: memory.GPA(2 * low * memory.PageSize), SizeBytes: (pages - low) * memory.PageSize},
	}, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// allPages returns every page of g.
func allPages(g *memory.Guest) []memory.GPA {
	var all []memory.GPA
	for _, r := range g.Regions() {
		for off := uint64(0); off < r.SizeBytes; off += memory.PageSize {
			all = append(all, r.Base+memory.GPA(off))
		}
	}
	return all
}

// sourcePage is the content of a page at the source: zeros for one in eight.
func sourcePage(gpa memory.GPA) []byte {
	page := make([]byte, memory.PageSize)
	number := pageNumber(gpa)
	if number%8 == 3 {
		return page
	}
	for off := 0; off < len(page); off += 8 {
		binary.LittleEndian.PutUint64(page[off:], number<<16|uint64(off))
	}
	return page
}

func newSource(t testing.TB, pages uint64) *memory.Guest {
	t.Helper()
	g := newGuest(t, pages)
	for _, gpa := range allPages(g) {
		if err := g.WriteAt(gpa, sourcePage(gpa)); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

func setOf(g *memory.Guest, pages ...memory.GPA) *memory.PageSet {
	set := g.NewPageSet()
	for _, gpa := range pages {
		set.Add(gpa)
	}
	return set
}

// newPair returns the two ends of a Unix stream.
func newPair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() { ends[i].Close() })
	}
	return ends[0], ends[1]
}

// newPagerOf guesses by the predictor, if one is named.
func newPagerOf(t testing.TB, mem Memory, predictor string, guest *memory.Guest) *Pager {
	t.Helper()
	if predictor == "" {
		return NewPager(mem, PagerOptions{})
	}
	g, err := NewGuesser(predictor, guest.Regions())
	if err != nil {
		t.Fatal(err)
	}
	return NewPager(mem, PagerOptions{Guesser: g})
}

func newConn(c net.Conn) Conn {
	return Conn{Conn: c, Reader: wire.NewReader(c), Writer: wire.NewWriter(c)}
}

func newTestPager(t testing.TB, m *fakeMemory, predictor string) *Pager {
	t.Helper()
	return newPagerOf(t, m, predictor, m.guest)
}

// links are the connections of one run.
type links struct {
	source, destination []Conn // the first is the fault connection
}

func newLinks(t testing.TB, background int) *links {
	t.Helper()
	l := &links{}
	for range 1 + background {
		a, b := newPair(t)
		l.source, l.destination = append(l.source, newConn(a)), append(l.destination, newConn(b))
	}
	return l
}

func (l *links) close() {
	for i := range l.source {
		l.source[i].Close()
		l.destination[i].Close()
	}
}

// runBoth serves and pages over the links until both have returned, and returns both errors. As the callers do,
// each side closes its connections when it fails, and the source is told when the destination has everything.
func runBoth(s *Server, p *Pager, l *links) (serveErr, runErr error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		err := s.Serve(ctx, l.source[0], l.source[1:])
		l.close()
		done <- err
	}()
	runErr = p.Run(context.Background(), l.destination[0], l.destination[1:])
	if runErr == nil {
		cancel()
	} else {
		l.close()
	}
	return <-done, runErr
}

// check compares the memory with what the source has, for the pages for which the guest has written nothing.
func (m *fakeMemory) check(written map[memory.GPA]uint64) error {
	for _, gpa := range allPages(m.guest) {
		want := sourcePage(gpa)
		if v, ok := written[gpa]; ok {
			binary.LittleEndian.PutUint64(want, v)
		}
		got := make([]byte, memory.PageSize)
		if err := m.guest.ReadAt(gpa, got); err != nil {
			return err
		}
		if string(got) != string(want) {
			return fmt.Errorf("page %#x begins with %x, want %x", pageNumber(gpa), got[:16], want[:16])
		}
	}
	return nil
}
