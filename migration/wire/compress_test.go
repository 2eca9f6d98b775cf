package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/fineline-vmm/fineline/memory"
)

// received is the next frame of a stream with these bytes.
func received(stream []byte, takes Set) (Frame, error) {
	return NewReader(bytes.NewReader(stream)).Next(takes)
}

// packed is a PAGES_ZSTD frame with any payload.
func packed(t testing.TB, payload []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := NewWriter(&out).Bytes(TypePagesZstd, payload); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstdOf(t testing.TB, content []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	return enc.EncodeAll(content, nil)
}

// TestCompress: what leaves compressed arrives as the same records, and only if that is smaller.
func TestCompress(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var stream bytes.Buffer
	w, r, c := NewWriter(&stream), NewReader(&stream), NewCompressor()
	b := NewBatch(MaxBatchBytes)
	for i, tc := range []struct {
		page    []byte
		smaller bool
	}{
		{bytes.Repeat([]byte{1, 2, 3, 4}, memory.PageSize/4), true},
		{randomPage(rng), true}, // the same page again and again
		{nil, false},            // others each time
		{make([]byte, memory.PageSize), true},
	} {
		b.Reset()
		for n := uint64(0); !b.Full(); n += 2 {
			page := tc.page
			if page == nil {
				page = randomPage(rng)
			}
			b.AppendPage(n, page)
		}
		want := bytes.Clone(payload(b))
		if got := b.Compress(c); got != tc.smaller || got != (b.WireBytes() < b.SizeBytes()) {
			t.Errorf("batch %d: smaller is %v, %d bytes of %d", i, got, b.WireBytes(), b.SizeBytes())
		}
		if err := w.Batch(b); err != nil {
			t.Fatal(err)
		}
		if stream.Len() != HeaderBytes+b.WireBytes() {
			t.Errorf("batch %d: %d bytes on the wire, said to be %d", i, stream.Len(), b.WireBytes())
		}
		f, err := r.Next(Of(TypePages, TypePagesZstd))
		if err != nil || f.Type != TypePages || f.WireBytes != b.WireBytes() || !bytes.Equal(f.Payload, want) {
			t.Errorf("batch %d: %s with %d bytes from %d, %v", i, f.Type, len(f.Payload), f.WireBytes, err)
		}
	}
	b.Reset()
	b.AppendZero(1)
	b.Seal()
	if b.WireBytes() != RecordBytes {
		t.Error("a batch is sent as what it was before Reset")
	}
}

// TestCompressAllocations: a batch is compressed, sent and read without any of the size of a page.
func TestCompressAllocations(t *testing.T) {
	var stream bytes.Buffer
	stream.Grow(1 << 20)
	w, r, c := NewWriter(&stream), NewReader(&stream), NewCompressor()
	b := NewBatch(MaxBatchBytes)
	page := randomPage(rand.New(rand.NewPCG(1, 1)))
	round := func() {
		b.Reset()
		for n := uint64(0); !b.Full(); n++ {
			b.AppendPage(n, page)
		}
		b.Seal()
		if !b.Compress(c) || w.Batch(b) != nil {
			t.Fatal("not compressed, or not sent")
		}
		if f, err := r.Next(Of(TypePagesZstd)); err != nil || len(f.Payload) != b.SizeBytes() {
			t.Fatal(err)
		}
	}
	round()
	if got := allocated(func() {
		for range 10 {
			round()
		}
	}); got > 10*memory.PageSize {
		t.Errorf("%d bytes allocated for 10 batches", got)
	}
}

// allocated is how many bytes fn takes from the heap.
func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// bombs are payloads that expand to more than a batch, in each way the format has.
func bombs(t testing.TB) map[string][]byte {
	zeros := make([]byte, MaxBatchBytes)
	full := zstdOf(t, zeros)
	// A frame of unknown size with a window of 1 KiB and 1 MiB of RLE blocks of 128 KiB.
	block := func(last byte) []byte { return []byte{2 | last, 0, 0x10, 0} } // type 1 (RLE), size 128 KiB
	rle := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0x38}
	for range 10_000 {
		rle = append(rle, block(0)...)
	}
	return map[string][]byte{
		"one byte more":     zstdOf(t, append(zeros, 0)),
		"two batches":       append(bytes.Clone(full), full...),
		"batch and a byte":  append(bytes.Clone(full), zstdOf(t, []byte{1})...),
		"gigabytes":         zstdOf(t, make([]byte, 64<<20)),
		"run-length blocks": append(rle, block(1)...),
		// Single segment, 8 bytes of content size.
		"promise":      {0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0xff, 0, 0, 0, 1, 0, 0},
		"window":       {0x28, 0xb5, 0x2f, 0xfd, 0, 0xf8, 1, 0, 0},
		"dictionary":   {0x28, 0xb5, 0x2f, 0xfd, 0x23, 1, 2, 3, 4, 1, 9, 0, 0, 7},
		"wrong magic":  []byte("not zstd at all"),
		"cut":          full[:len(full)-1],
		"garbage tail": append(bytes.Clone(full), "tail"...),
		"short tail":   append(bytes.Clone(full), 0x28, 0xb5),
	}
}

func TestBadCompressed(t *testing.T) {
	if f, err := received(packed(t, zstdOf(t, make([]byte, MaxBatchBytes))), all()); err != nil || len(f.Payload) != MaxBatchBytes {
		t.Fatalf("%d bytes, %v", len(f.Payload), err)
	}
	for name, payload := range bombs(t) {
		if f, err := received(packed(t, payload), all()); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %d bytes, %v", name, len(f.Payload), err)
		}
		d := newDecompressor()
		if got := allocated(func() { _, _ = d.expand(payload) }); got > 3*MaxBatchBytes {
			t.Errorf("%s: %d bytes allocated", name, got)
		}
	}
	// A state that takes PAGES alone takes no compressed ones.
	if _, err := received(packed(t, zstdOf(t, []byte{1})), Of(TypePages)); !errors.Is(err, ErrProtocol) {
		t.Errorf("taken for PAGES: %v", err)
	}
}

// FuzzCompressed expands arbitrary bytes: errors, no panics, never more than a batch.
func FuzzCompressed(f *testing.F) {
	for _, payload := range bombs(f) {
		f.Add(payload[:min(len(payload), 4096)])
	}
	f.Add(zstdOf(f, bytes.Repeat([]byte("lines"), 1000)))
	d := newDecompressor()
	f.Fuzz(func(t *testing.T, payload []byte) {
		records, err := d.expand(payload)
		if err == nil && len(records) > MaxBatchBytes {
			t.Fatalf("%d bytes", len(records))
		}
	})
}

func BenchmarkCompress(b *testing.B) {
	c := NewCompressor()
	batch := NewBatch(MaxBatchBytes)
	rng := rand.New(rand.NewPCG(1, 1))
	for n := uint64(0); !batch.Full(); n++ { // half of it is noise
		batch.AppendPage(n, append(randomPage(rng)[memory.PageSize/2:], make([]byte, memory.PageSize/2)...))
	}
	batch.Seal()
	b.SetBytes(int64(batch.SizeBytes()))
	b.ReportAllocs()
	for b.Loop() {
		if !batch.Compress(c) {
			b.Fatal("not smaller")
		}
	}
}

func BenchmarkExpand(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	var records []byte
	for len(records) < MaxBatchBytes {
		records = append(records, append(randomPage(rng)[memory.PageSize/2:], make([]byte, memory.PageSize/2)...)...)
	}
	payload := zstdOf(b, records)
	d := newDecompressor()
	b.SetBytes(MaxBatchBytes)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.expand(payload); err != nil {
			b.Fatal(err)
		}
	}
}
