package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/identity"
)

func all() Set {
	var s Set
	for t := TypeInvalid + 1; t < TypeCount; t++ {
		s |= Of(t)
	}
	return s
}

func testHello() Hello {
	return Hello{
		Purpose: PurposeMigrate, Mode: ModePrecopy, Build: "test", MachineID: "m", Generation: 1,
		Process: identity.Process{BootID: "b", PID: 1}, Journal: "/j",
	}
}

func frame(t testing.TB, ft Type, msg any) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := NewWriter(&out).Message(ft, msg); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// resealed changes a frame and corrects its checksum, as a hostile peer would.
func resealed(frame []byte, change func(f []byte)) []byte {
	f := bytes.Clone(frame)
	change(f)
	crc := crc32.Update(crc32.Checksum(f[HeaderBytes:], castagnoli()), castagnoli(), f[:checksumOffset])
	binary.LittleEndian.PutUint32(f[checksumOffset:], crc)
	return f
}

func TestRoundTrip(t *testing.T) {
	var stream bytes.Buffer
	w := NewWriter(&stream)
	if err := errors.Join(
		w.Message(TypeHello, testHello()),
		w.Bytes(TypeState, bytes.Repeat([]byte("state"), 100_000)),
		w.Signal(TypeCommit),
	); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&stream)
	f, err := r.Next(all())
	if err != nil {
		t.Fatal(err)
	}
	hello, err := Decode[Hello](f)
	if err != nil || *hello != testHello() {
		t.Errorf("%+v, %v", hello, err)
	}
	if f, err = r.Next(Of(TypeState)); err != nil || len(f.Payload) != 500_000 || !bytes.HasSuffix(f.Payload, []byte("state")) {
		t.Errorf("state of %d bytes, %v", len(f.Payload), err)
	}
	if f, err = r.Next(Of(TypeCommit)); err != nil || len(f.Payload) != 0 {
		t.Errorf("%v, %v", f, err)
	}
	if _, err = r.Next(all()); err != io.EOF { //nolint:errorlint // bare is what is asked for
		t.Errorf("at the end: %v, want bare io.EOF", err)
	}
}

func TestBadFrames(t *testing.T) {
	good := frame(t, TypeHello, testHello())
	for _, tc := range []struct {
		name  string
		bytes []byte
		takes Set
	}{
		{"magic", resealed(good, func(f []byte) { f[0]++ }), all()},
		{"version", resealed(good, func(f []byte) { f[4]++ }), all()},
		{"type zero", resealed(good, func(f []byte) { f[6] = 0 }), all()},
		{"type unknown", resealed(good, func(f []byte) { f[6] = byte(TypeCount) }), all()},
		{"type out of order", good, Of(TypeCommit)},
		{"oversize", resealed(good, func(f []byte) { binary.LittleEndian.PutUint32(f[8:], maxControlBytes+1) }), all()},
		{"huge", resealed(good, func(f []byte) { binary.LittleEndian.PutUint32(f[8:], 1<<32-1) }), all()},
		{"sequence", resealed(good, func(f []byte) { f[12]++ }), all()},
		{"checksum", append(bytes.Clone(good[:len(good)-1]), '!'), all()},
		{"payload on a signal", resealed(good, func(f []byte) { f[6] = byte(TypeCommit) }), all()},
	} {
		_, err := NewReader(bytes.NewReader(tc.bytes)).Next(tc.takes)
		var version *VersionError
		if !errors.Is(err, ErrProtocol) && !errors.As(err, &version) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	for size := 1; size < len(good); size++ {
		if _, err := NewReader(bytes.NewReader(good[:size])).Next(all()); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", size, err)
		}
	}
	twice := append(bytes.Clone(good), good...)
	r := NewReader(bytes.NewReader(twice))
	if _, err := r.Next(all()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(all()); !errors.Is(err, ErrProtocol) {
		t.Errorf("repeated: %v", err)
	}
}

// TestPromisesCostNothing: a header that promises a large payload does not make the reader allocate it.
func TestPromisesCostNothing(t *testing.T) {
	var head header
	head.fill(TypeState, MaxStateBytes, 0, 0)
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := NewReader(bytes.NewReader(head[:])).Next(all()); err == nil {
				b.Fatal("a state without bytes")
			}
		}
	})
	if got := result.AllocedBytesPerOp(); got > 256<<10 {
		t.Errorf("%d bytes allocated for a promise", got)
	}
}

func TestMessages(t *testing.T) {
	long := testHello()
	long.MachineID = strings.Repeat("x", MaxMachineIDBytes+1)
	for name, payload := range map[string]string{
		"not json":      "{",
		"unknown field": `{"purpose":1,"machine_id":"m","generation":1,"shoe_size":9}`,
		"two messages":  `{"purpose":1,"machine_id":"m","generation":1}{}`,
		"no purpose":    `{"machine_id":"m","generation":1}`,
		"no machine":    `{"purpose":1,"generation":1}`,
		"no generation": `{"purpose":1,"machine_id":"m"}`,
		"long machine":  string(frame(t, TypeHello, long)[HeaderBytes:]),
	} {
		if _, err := Decode[Hello](Frame{Type: TypeHello, Payload: []byte(payload)}); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, payload := range []string{`{}`, `{"fate":9}`, `{"fate":1}`} {
		if _, err := Decode[Verdict](Frame{Type: TypeVerdict, Payload: []byte(payload)}); !errors.Is(err, ErrProtocol) {
			t.Errorf("verdict %s: %v", payload, err)
		}
	}
}

// TestReasonFits: the longest reason of the worst characters fits into its frame.
func TestReasonFits(t *testing.T) {
	reason := NewReason(strings.Repeat("\x00", 1<<20), true)
	if err := NewWriter(io.Discard).Message(TypeAbort, reason); err != nil {
		t.Error(err)
	}
}

// TestTooLarge: a payload beyond its type's cap is refused by the writer and by the reader.
func TestTooLarge(t *testing.T) {
	for ft, limit := range map[Type]int{
		TypeState:     MaxStateBytes,
		TypePages:     1 << 20,
		TypePagesZstd: 1 << 20,
		TypeAbsent:    64 << 20,
		TypeRequest:   64 * 8,
		TypeComplete:  maxControlBytes,
	} {
		if err := NewWriter(io.Discard).Bytes(ft, make([]byte, limit+1)); err == nil {
			t.Errorf("%s beyond the cap was sent", ft)
		}
		if err := NewWriter(io.Discard).Bytes(ft, make([]byte, limit)); err != nil {
			t.Errorf("%s at the cap: %v", ft, err)
		}
		var h header
		h.fill(ft, limit+1, 0, 0)
		if _, err := received(h[:], all()); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s beyond the cap: %v", ft, err)
		}
	}
}

type gotRecord struct {
	kind  Kind
	first uint64
	count uint32
	byte0 byte
}

func records(t *testing.T, b *Batch) []gotRecord {
	t.Helper()
	var stream bytes.Buffer
	b.Seal()
	if err := NewWriter(&stream).Batch(b); err != nil {
		t.Fatal(err)
	}
	f, err := NewReader(&stream).Next(Of(TypePages))
	if err != nil {
		t.Fatal(err)
	}
	var out []gotRecord
	if err := EachRecord(f.Payload, func(rec Record) error {
		g := gotRecord{kind: rec.Kind, first: rec.First, count: rec.Count}
		if len(rec.Data) > 0 {
			g.byte0 = rec.Data[0]
		}
		out = append(out, g)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBatchJoinsNeighbours(t *testing.T) {
	page := func(b byte) []byte { return bytes.Repeat([]byte{b}, memory.PageSize) }
	b := NewBatch(MaxBatchBytes)
	for range 2 { // the second time after Reset
		b.Reset()
		b.AppendPage(1, page(1))
		b.AppendPage(2, page(2))
		b.AppendPage(4, page(4))
		b.AppendZero(5)
		b.AppendZero(6)
		b.AppendPage(7, page(7))
		b.Retract()
		b.AppendZero(7)
		b.AppendPage(8, page(8))
		b.AppendPage(9, page(9))
		b.Retract()
		got := records(t, b)
		want := []gotRecord{{KindData, 1, 2, 1}, {KindData, 4, 1, 4}, {KindZero, 5, 3, 0}, {KindData, 8, 1, 8}}
		if len(got) != len(want) {
			t.Fatalf("%v, want %v", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("record %d is %v, want %v", i, got[i], want[i])
			}
		}
	}
}

func TestBatchFills(t *testing.T) {
	page := make([]byte, memory.PageSize)
	b := NewBatch(MaxBatchBytes)
	for n := uint64(0); !b.Full(); n += 2 { // no two are neighbours: the worst case for headers
		b.AppendPage(n, page)
	}
	if size := b.SizeBytes(); size > MaxBatchBytes || size < MaxBatchBytes-2*MinBatchBytes {
		t.Errorf("a full batch has %d bytes", size)
	}
	if got := records(t, b); len(got) != MaxBatchBytes/(RecordBytes+memory.PageSize) {
		t.Errorf("%d records", len(got))
	}
}

func TestBadRecords(t *testing.T) {
	good := make([]byte, RecordBytes+memory.PageSize)
	good[8] = byte(KindData)
	good[12] = 1
	if _, _, err := nextRecord(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(f []byte) []byte{
		"short header": func(f []byte) []byte { return f[:RecordBytes-1] },
		"short page":   func(f []byte) []byte { return f[:len(f)-1] },
		"kind zero":    func(f []byte) []byte { f[8] = 0; return f },
		"kind unknown": func(f []byte) []byte { f[8] = 99; return f },
		"reserved":     func(f []byte) []byte { f[9] = 1; return f },
		"no pages":     func(f []byte) []byte { f[12] = 0; return f },
		"many pages":   func(f []byte) []byte { f[15] = 0xff; return f },
		"overflow":     func(f []byte) []byte { copy(f, bytes.Repeat([]byte{0xff}, 8)); return f },
	} {
		if _, _, err := nextRecord(change(bytes.Clone(good))); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzFrame reads arbitrary bytes as frames and their messages: errors, no panics, and what was read
// is bounded by what was given.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("FLMG"))
	f.Add(frame(f, TypeHello, testHello()))
	f.Add(frame(f, TypeVerdict, Verdict{Fate: FateOwner, Running: &Running{MonotonicNS: 1}}))
	f.Add(frame(f, TypeRoundEnd, RoundEnd{Round: 1, Pages: 2, Paused: true}))
	b := NewBatch(MinBatchBytes * 4)
	b.AppendPage(1, make([]byte, memory.PageSize))
	b.AppendZero(2)
	b.Seal()
	var pages bytes.Buffer
	if err := NewWriter(&pages).Batch(b); err != nil {
		f.Fatal(err)
	}
	f.Add(pages.Bytes())
	f.Add(packed(f, zstdOf(f, pages.Bytes()[HeaderBytes:])))
	f.Fuzz(func(t *testing.T, data []byte) {
		// A fuzzer does not find checksums; give it right ones for the first frame.
		if len(data) >= HeaderBytes {
			size := int(binary.LittleEndian.Uint32(data[8:]))
			if size >= 0 && size <= len(data)-HeaderBytes {
				fixed := resealed(data[:HeaderBytes+size], func([]byte) {})
				data = append(fixed, data[HeaderBytes+size:]...)
			}
		}
		r := NewReader(bytes.NewReader(data))
		for total := 0; ; {
			fr, err := r.Next(all())
			if err != nil {
				return
			}
			if total += HeaderBytes + fr.WireBytes; total > len(data) || len(fr.Payload) > max(len(data), MaxBatchBytes) {
				t.Fatalf("%d bytes read of %d", total, len(data))
			}
			_, _ = Decode[Hello](fr)
			_, _ = Decode[Verdict](fr)
			_, _ = Decode[RoundEnd](fr)
			if fr.Type != TypePages {
				continue
			}
			_, _ = readLines(fr.Payload)
			_ = EachRecord(fr.Payload, func(rec Record) error {
				if rec.Kind == KindData && len(rec.Data) != int(rec.Count)*memory.PageSize {
					t.Fatalf("%d pages with %d bytes", rec.Count, len(rec.Data))
				}
				return nil
			})
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	page := bytes.Repeat([]byte{1}, memory.PageSize)
	batch := NewBatch(MaxBatchBytes)
	w := NewWriter(io.Discard)
	b.SetBytes(MaxBatchBytes)
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		for n := uint64(0); !batch.Full(); n++ {
			batch.AppendPage(n, page)
		}
		batch.Seal()
		if err := w.Batch(batch); err != nil {
			b.Fatal(err)
		}
	}
}
