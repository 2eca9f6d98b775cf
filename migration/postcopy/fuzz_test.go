package postcopy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// byteConn brings given bytes and takes everything.
type byteConn struct {
	net.Conn // nil: what is not below is not called
	r        io.Reader
}

func (c *byteConn) Read(p []byte) (int, error)       { return c.r.Read(p) }
func (c *byteConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *byteConn) SetDeadline(time.Time) error      { return nil }
func (c *byteConn) SetWriteDeadline(time.Time) error { return nil }

// framed makes frames of fuzzed bytes, with right checksums: type, size in 2 bytes, payload; and so on.
func framed(data []byte, types []wire.Type) []byte {
	var out bytes.Buffer
	w := wire.NewWriter(&out)
	for len(data) >= 3 {
		ft := types[int(data[0])%len(types)]
		size := min(int(binary.LittleEndian.Uint16(data[1:])), len(data)-3)
		_ = w.Bytes(ft, data[3:][:size])
		data = data[3+size:]
	}
	return out.Bytes()
}

// unframed is the inverse for one frame.
func unframed(kind byte, payload []byte) []byte {
	return append(binary.LittleEndian.AppendUint16([]byte{kind}, uint16(len(payload))), payload...)
}

func seedBatch() []byte {
	b := wire.NewBatch(wire.MaxBatchBytes)
	b.AppendZero(1)
	b.AppendPage(2, bytes.Repeat([]byte{7}, memory.PageSize))
	b.AppendLines(4, 3, make([]byte, 128))
	b.AppendDelta(6, 1, make([]byte, 64), bytes.Repeat([]byte{1}, 64))
	b.Seal()
	var out bytes.Buffer
	_ = wire.NewWriter(&out).Batch(b)
	return out.Bytes()[wire.HeaderBytes:]
}

// FuzzPager runs a pager over arbitrary frames: an error and no panic, and what is present does not change.
func FuzzPager(f *testing.F) {
	batch := seedBatch()
	f.Add(unframed(0, batch), unframed(0, batch))
	f.Add(unframed(0, batch[:wire.RecordBytes]), unframed(1, []byte(`{"round":1,"pages":0}`)))
	f.Add([]byte{}, append(unframed(0, batch), unframed(1, []byte(`{"round":1,"pages":4}`))...))
	types := []wire.Type{wire.TypePages, wire.TypeRoundEnd, wire.TypePagesZstd, wire.TypeAbort}
	guest := newGuest(f, 12)
	before := bytes.Repeat([]byte{0x11}, memory.PageSize)
	f.Fuzz(func(t *testing.T, fault, background []byte) {
		for _, gpa := range allPages(guest) {
			if err := guest.WriteAt(gpa, before); err != nil {
				t.Fatal(err)
			}
		}
		m := newFakeMemory(guest, setOf(guest, allPages(guest)[1:8]...))
		absent := m.Absent()
		stop := make(chan struct{})
		waited := make(chan bool, 1)
		go func() { waited <- m.touch(pageGPA(2), stop) }()
		p := newTestPager(t, m, "auto")
		err := p.Run(context.Background(), newConn(&byteConn{r: bytes.NewReader(framed(fault, types))}),
			[]Conn{newConn(&byteConn{r: bytes.NewReader(framed(background, types))})})
		close(stop)
		<-waited
		switch {
		case err == nil:
			if m.Len() != 0 {
				t.Error("Run returned without an error, and pages are absent")
			}
		case !errors.Is(err, wire.ErrProtocol) && !errors.Is(err, ErrConnectionLost):
			t.Errorf("Run: %v", err)
		}
		got := make([]byte, memory.PageSize)
		for _, gpa := range allPages(guest) {
			if err := guest.ReadAt(gpa, got); err != nil {
				t.Fatal(err)
			}
			if (!absent.Has(gpa) || m.Has(gpa)) && !bytes.Equal(got, before) {
				t.Errorf("page %#x has changed", pageNumber(gpa))
			}
		}
	})
}

// FuzzServer serves arbitrary frames.
func FuzzServer(f *testing.F) {
	f.Add(unframed(0, wire.AppendRequest(nil, []uint64{1, 2, 3})))
	f.Add(append(unframed(0, wire.AppendRequest(nil, []uint64{7})), unframed(0, wire.AppendRequest(nil, []uint64{7, 1 << 40}))...))
	types := []wire.Type{wire.TypeRequest, wire.TypeComplete, wire.TypeRequestLine}
	source := newSource(f, 12)
	f.Fuzz(func(t *testing.T, data []byte) {
		s := NewServer(source, setOf(source, allPages(source)[1:8]...), ServerOptions{})
		conn := newConn(&byteConn{r: bytes.NewReader(framed(data, types))})
		err := s.Serve(context.Background(), conn, []Conn{newConn(&byteConn{})})
		if !errors.Is(err, wire.ErrProtocol) && !errors.Is(err, ErrConnectionLost) {
			t.Errorf("Serve: %v", err)
		}
	})
}
