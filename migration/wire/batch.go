package wire

import (
	"encoding/binary"
	"hash/crc32"

	"gvisor.dev/gvisor/pkg/buffer"

	"github.com/fineline-vmm/fineline/memory"
)

// Kind says what a page record holds.
type Kind uint8

// The kinds of records. Line masks will be the next one, and with it the next Version.
const (
	KindInvalid Kind = iota
	KindData         // count pages of content follow
	KindZero         // count pages are zero, nothing follows
)

// RecordBytes is the size of a record's header:
//
//	offset  size
//	     0     8  number of the first page (guest-physical address / 4096)
//	     8     1  kind
//	     9     3  zero
//	    12     4  count of pages, at least 1
const RecordBytes = 16

// MinBatchBytes is the smallest useful batch: one page.
const MinBatchBytes = RecordBytes + memory.PageSize

// Batch gathers page records into one large buffer, the payload of one PAGES frame: neighbours of one
// kind join into one record. It is reused, so that sending allocates nothing. It is for one goroutine
// at a time; a sealed batch may be handed to another.
type Batch struct {
	view  *buffer.View // room for the frame's header, then the records
	limit int          // of the view, in bytes
	crc   uint32

	run  run // the open one
	last run // the one before it
}

// run is a record that may still grow.
type run struct {
	at    int // offset in the view of its header
	kind  Kind
	first uint64
	count uint32
}

// NewBatch returns an empty batch with at most sizeBytes of records, MinBatchBytes to MaxBatchBytes.
func NewBatch(sizeBytes int) *Batch {
	limit := HeaderBytes + min(max(sizeBytes, MinBatchBytes), MaxBatchBytes)
	b := &Batch{view: buffer.NewView(limit), limit: limit}
	b.Reset()
	return b
}

// Reset empties the batch.
func (b *Batch) Reset() {
	b.view.Reset()
	b.view.Grow(HeaderBytes)
	b.run, b.last = run{}, run{}
}

// SizeBytes is the size of the records.
func (b *Batch) SizeBytes() int { return b.view.Size() - HeaderBytes }

// Full reports that a page might not fit any more.
func (b *Batch) Full() bool { return b.view.Size()+RecordBytes+memory.PageSize > b.limit }

// AppendPage copies a page of content into the batch and returns the copy, which the caller only
// reads. It is the copy that is sent, hashed or compared, since the guest goes on writing to page
// itself (design law 2). Precondition: not Full.
func (b *Batch) AppendPage(number uint64, page []byte) []byte {
	b.extend(KindData, number)
	_, _ = b.view.Write(page) // there is room
	all := b.view.AsSlice()
	return all[len(all)-memory.PageSize:]
}

// RetractPage takes back the page appended last. The run before it can grow again.
func (b *Batch) RetractPage() {
	b.run.count--
	size := b.view.Size() - memory.PageSize
	if b.run.count == 0 {
		size -= RecordBytes
		b.run, b.last = b.last, run{}
	}
	b.view.CapLength(size)
}

// AppendZero says that a page is zero. Precondition: not Full.
func (b *Batch) AppendZero(number uint64) { b.extend(KindZero, number) }

// extend adds the page to the open run, or closes that and opens another.
func (b *Batch) extend(kind Kind, number uint64) {
	if b.run.kind == kind && number == b.run.first+uint64(b.run.count) {
		b.run.count++
		return
	}
	b.closeRun()
	b.last, b.run = b.run, run{at: b.view.Size(), kind: kind, first: number, count: 1}
	var head [RecordBytes]byte
	_, _ = b.view.Write(head[:])
}

// closeRun completes the header of the open run.
func (b *Batch) closeRun() {
	if b.run.kind == KindInvalid {
		return
	}
	var head [RecordBytes]byte
	binary.LittleEndian.PutUint64(head[0:], b.run.first)
	head[8] = byte(b.run.kind)
	binary.LittleEndian.PutUint32(head[12:], b.run.count)
	_, _ = b.view.WriteAt(head[:], b.run.at)
}

// Seal ends the last run and takes the checksum of the records. A sealed batch takes no more records
// before Reset.
func (b *Batch) Seal() {
	b.closeRun()
	b.crc = crc32.Checksum(b.view.AsSlice()[HeaderBytes:], castagnoli())
}

// Record is one record of a PAGES frame.
type Record struct {
	Kind  Kind
	First uint64 // page number
	Count uint32
	Data  []byte // Count pages, for KindData; borrowed from the frame
}

// NextRecord splits the first record off a PAGES payload. It checks the form; whether the pages exist
// is checked by whoever owns the memory.
func NextRecord(payload []byte) (rec Record, rest []byte, err error) {
	if len(payload) < RecordBytes {
		return Record{}, nil, protocolErrorf("a page record of %d bytes", len(payload))
	}
	head := payload[:RecordBytes]
	rec = Record{
		First: binary.LittleEndian.Uint64(head[0:]),
		Kind:  Kind(head[8]),
		Count: binary.LittleEndian.Uint32(head[12:]),
	}
	rest = payload[RecordBytes:]
	// A page number beyond this has no 64-bit address.
	const maxPages = 1 << 52
	switch {
	case head[9]|head[10]|head[11] != 0:
		return Record{}, nil, protocolErrorf("a page record has reserved bits set")
	case rec.Count == 0 || rec.First > maxPages-uint64(rec.Count):
		return Record{}, nil, protocolErrorf("a page record has %d pages from page %d", rec.Count, rec.First)
	case rec.Kind == KindZero:
		return rec, rest, nil
	case rec.Kind != KindData:
		return Record{}, nil, protocolErrorf("a page record has kind %d", rec.Kind)
	}
	size := uint64(rec.Count) * memory.PageSize
	if size > uint64(len(rest)) {
		return Record{}, nil, protocolErrorf("a page record has %d pages and %d bytes", rec.Count, len(rest))
	}
	rec.Data = rest[:size]
	return rec, rest[size:], nil
}
