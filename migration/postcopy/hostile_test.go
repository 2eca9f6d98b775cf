package postcopy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// TestHostileSource: what no correct source sends ends the run with an error of its class, and changes nothing
// that was not absent. Pages 0 to 9 are absent, and the guest waits for page 4.
func TestHostileSource(t *testing.T) {
	content := bytes.Repeat([]byte{0xaa}, memory.PageSize)
	pages := func(numbers ...uint64) func(w *wire.Writer) error {
		return func(w *wire.Writer) error {
			b := wire.NewBatch(wire.MaxBatchBytes)
			for _, n := range numbers {
				b.AppendPage(n, content)
			}
			b.Seal()
			return w.Batch(b)
		}
	}
	lines := func(number uint64) func(w *wire.Writer) error {
		return func(w *wire.Writer) error {
			b := wire.NewBatch(wire.MinBatchBytes)
			b.AppendLines(number, 1, content[:64])
			b.Seal()
			return w.Batch(b)
		}
	}
	zeros := func(first uint64, count uint32) func(w *wire.Writer) error {
		return func(w *wire.Writer) error {
			var rec [wire.RecordBytes]byte
			binary.LittleEndian.PutUint64(rec[:], first)
			rec[8] = byte(wire.KindZero)
			binary.LittleEndian.PutUint32(rec[12:], count)
			return w.Bytes(wire.TypePages, rec[:])
		}
	}
	end := func(e wire.RoundEnd) func(w *wire.Writer) error {
		return func(w *wire.Writer) error { return w.Message(wire.TypeRoundEnd, e) }
	}
	raw := func(ft wire.Type, payload string) func(w *wire.Writer) error {
		return func(w *wire.Writer) error { return w.Bytes(ft, []byte(payload)) }
	}
	all := func(fs ...func(w *wire.Writer) error) func(w *wire.Writer) error {
		return func(w *wire.Writer) error {
			for _, f := range fs {
				if err := f(w); err != nil {
					return err
				}
			}
			return nil
		}
	}
	const fault, background = 0, 1
	for _, tc := range []struct {
		name string
		on   int
		send func(w *wire.Writer) error
	}{
		{"unasked page", fault, pages(5)},
		{"asked page twice", fault, all(pages(4), pages(4))},
		{"page that is present", fault, pages(20)},
		{"lines of a page that is present", fault, lines(20)},
		{"page in the hole", fault, pages(50)},
		{"page beyond memory", fault, pages(1 << 40)},
		{"all pages zero", fault, zeros(0, 1<<32-1)},
		{"end", fault, end(wire.RoundEnd{Round: 1})},
		{"request", fault, raw(wire.TypeRequest, "12345678")},
		{"line where there are none", fault, raw(wire.TypeLine, string(wire.AppendLine(nil, 4*pageLines, content[:lineBytes])))},
		{"page that is present", background, pages(20)},
		{"page twice", background, all(pages(3), pages(3))},
		{"page twice in a frame", background, pages(3, 3)},
		{"into what is present", background, pages(8, 9, 10)},
		{"lines of a page that is present", background, lines(20)},
		{"page in the hole", background, zeros(50, 1)},
		{"all pages zero", background, zeros(0, 1<<32-1)},
		{"beyond all addresses", background, zeros(1<<52, 1)},
		{"half a record", background, raw(wire.TypePages, "123")},
		{"half of zstd", background, raw(wire.TypePagesZstd, "123")},
		{"lines cut short", background, raw(wire.TypePages, "\x03\x00\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x01\x00\x00\x00\x00\x80\x00")},
		{"end before the pages", background, end(wire.RoundEnd{Round: 1})},
		{"end of pages that did not come", background, end(wire.RoundEnd{Round: 1, Pages: 10})},
		{"end of fewer pages than came", background, all(pages(0, 1, 2, 3, 5, 6, 7, 8, 9), end(wire.RoundEnd{Round: 1, Pages: 8}))},
		{"no pages", background, raw(wire.TypePages, "")},
		{"end that is none", background, raw(wire.TypeRoundEnd, "{")},
		{"another round", background, end(wire.RoundEnd{Round: 2})},
		{"state", background, raw(wire.TypeState, "x")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			guest := newGuest(t, 60)
			before := bytes.Repeat([]byte{0x11}, memory.PageSize)
			for _, gpa := range allPages(guest) {
				if err := guest.WriteAt(gpa, before); err != nil {
					t.Fatal(err)
				}
			}
			m := newFakeMemory(guest, setOf(guest, allPages(guest)[:10]...))
			l := newLinks(t, 1)
			stop := make(chan struct{})
			go m.touch(pageGPA(4), stop)
			go func() {
				if _, err := l.source[fault].Reader.Next(wire.Of(wire.TypeRequest)); err == nil {
					_ = tc.send(l.source[tc.on].Writer)
				}
			}()
			err := newTestPager(t, m, "").run(l)
			close(stop)
			if !errors.Is(err, wire.ErrProtocol) {
				t.Errorf("Run: %v", err)
			}
			got := make([]byte, memory.PageSize)
			for i, gpa := range allPages(guest) {
				if err := guest.ReadAt(gpa, got); err != nil {
					t.Fatal(err)
				}
				if (i >= 10 || m.Has(gpa)) && !bytes.Equal(got, before) {
					t.Errorf("page %#x has changed", pageNumber(gpa))
				}
			}
		})
	}
}

// run runs to its end and closes the connections.
func (p *Pager) run(l *links) error {
	defer l.close()
	return p.Run(context.Background(), l.destination[0], l.destination[1:])
}

// TestHostileDestination: what no correct destination sends ends Serve with an error of its class.
func TestHostileDestination(t *testing.T) {
	for _, tc := range []struct {
		name    string
		ft      wire.Type
		payload []byte
	}{
		{"page that is not to be delivered", wire.TypeRequest, wire.AppendRequest(nil, []uint64{11})},
		{"one predicted page of that kind", wire.TypeRequest, wire.AppendRequest(nil, []uint64{1, 2, 11})},
		{"page in the hole", wire.TypeRequest, wire.AppendRequest(nil, []uint64{50})},
		{"page beyond memory", wire.TypeRequest, wire.AppendRequest(nil, []uint64{1<<52 - 1})},
		{"page beyond all addresses", wire.TypeRequest, bytes.Repeat([]byte{0xff}, 8)},
		{"no page", wire.TypeRequest, nil},
		{"half a page number", wire.TypeRequest, []byte("1234")},
		{"line that is not to be delivered", wire.TypeRequestLine, wire.AppendRequestLine(nil, 11*pageLines)},
		{"line in the hole", wire.TypeRequestLine, wire.AppendRequestLine(nil, 50*pageLines)},
		{"line beyond all addresses", wire.TypeRequestLine, bytes.Repeat([]byte{0xff}, 8)},
		{"half a line number", wire.TypeRequestLine, []byte("1234")},
		{"pages", wire.TypePages, nil},
		{"complete", wire.TypeComplete, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			source := newSource(t, 60)
			s := NewServer(source, setOf(source, allPages(source)[:10]...), ServerOptions{})
			l := newLinks(t, 1)
			defer l.close()
			if err := l.destination[0].Writer.Bytes(tc.ft, tc.payload); err != nil {
				t.Fatal(err)
			}
			if err := s.Serve(context.Background(), l.source[0], l.source[1:]); !errors.Is(err, wire.ErrProtocol) {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// TestFloodOfRequests: a page is sent once on a connection, however often it is asked for, and predictions that
// pile up are dropped.
func TestFloodOfRequests(t *testing.T) {
	source := newSource(t, 2000)
	all := allPages(source)
	s := NewServer(source, setOf(source, all...), ServerOptions{})
	l := newLinks(t, 0)
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), l.source[0], nil) }()
	const floods = 5000
	go func() {
		var numbers []uint64
		for i := range wire.MaxRequestPages {
			numbers = append(numbers, uint64(i))
		}
		payload := wire.AppendRequest(nil, numbers)
		for range floods {
			if l.destination[0].Writer.Bytes(wire.TypeRequest, payload) != nil {
				return
			}
		}
		_ = l.destination[0].Writer.Bytes(wire.TypeRequest, wire.AppendRequest(nil, []uint64{600})) // the last
	}()
	got := map[uint64]int{}
	for got[600] == 0 {
		for _, page := range readPages(t, &l.destination[0]) {
			got[page]++
		}
	}
	for page, n := range got {
		if n != 1 {
			t.Errorf("page %d came %d times", page, n)
		}
	}
	l.close()
	if err := <-done; !errors.Is(err, ErrConnectionLost) {
		t.Errorf("Serve: %v", err)
	}
}

// readPages reads one PAGES frame and returns its pages.
func readPages(t testing.TB, c *Conn) (numbers []uint64) {
	t.Helper()
	f, err := c.Reader.Next(wire.Of(wire.TypePages, wire.TypePagesZstd))
	if err != nil {
		t.Fatal(err)
	}
	if err := wire.EachRecord(f.Payload, func(rec wire.Record) error {
		if rec.Kind == wire.KindLines {
			return rec.EachEntry(func(page uint64, _ wire.LineBody) error { numbers = append(numbers, page); return nil })
		}
		for i := range uint64(rec.Count) {
			numbers = append(numbers, rec.First+i)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return numbers
}

// TestSilence: a peer that does not do its part is a lost connection. The times are short, and nothing depends
// on how short.
func TestSilence(t *testing.T) {
	const timeout = 20 * time.Millisecond
	pipes := func() *links {
		a, b := net.Pipe() // takes nothing that is not read
		return &links{source: []Conn{newConn(a)}, destination: []Conn{newConn(b)}}
	}
	newPager := func(m *fakeMemory) *Pager {
		return NewPager(m, PagerOptions{PeerTimeout: timeout})
	}
	absent := func() *fakeMemory {
		guest := newGuest(t, 60)
		return newFakeMemory(guest, setOf(guest, allPages(guest)...))
	}
	t.Run("nothing comes", func(t *testing.T) {
		if err := newPager(absent()).run(newLinks(t, 1)); !errors.Is(err, ErrPeerSilent) {
			t.Errorf("%v", err)
		}
	})
	t.Run("a request is not answered", func(t *testing.T) {
		m, l, stop := absent(), newLinks(t, 1), make(chan struct{})
		go m.touch(0, stop)
		go func() { // every page comes but that one
			if _, err := l.source[0].Reader.Next(wire.Of(wire.TypeRequest)); err != nil {
				return
			}
			b := wire.NewBatch(wire.MaxBatchBytes)
			for _, gpa := range allPages(m.guest)[1:] {
				b.AppendZero(pageNumber(gpa))
			}
			b.Seal()
			_ = l.source[1].Writer.Batch(b)
		}()
		if err := newPager(m).run(l); !errors.Is(err, ErrPeerSilent) || !strings.Contains(err.Error(), "page 0x0") {
			t.Errorf("%v", err)
		}
		close(stop)
	})
	t.Run("a request is not taken", func(t *testing.T) {
		m, stop := absent(), make(chan struct{})
		go m.touch(0, stop)
		if err := newPager(m).run(pipes()); !errors.Is(err, ErrPeerSilent) {
			t.Errorf("%v", err)
		}
		close(stop)
	})
	t.Run("an answer is not taken", func(t *testing.T) {
		source, l := newSource(t, 60), pipes()
		defer l.close()
		s := NewServer(source, setOf(source, allPages(source)...), ServerOptions{PeerTimeout: timeout})
		go l.destination[0].Writer.Bytes(wire.TypeRequest, wire.AppendRequest(nil, []uint64{1}))
		if err := s.Serve(context.Background(), l.source[0], nil); !errors.Is(err, ErrPeerSilent) {
			t.Errorf("%v", err)
		}
	})
}
