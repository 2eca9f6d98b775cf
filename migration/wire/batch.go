package wire

import (
	"hash/crc32"

	"gvisor.dev/gvisor/pkg/buffer"

	"github.com/fineline-vmm/fineline/memory"
)

// MinBatchBytes is the smallest useful batch: one page in the worst form.
const MinBatchBytes = RecordBytes + maxOpeningEntryBytes

// Batch gathers page records into one large buffer, the payload of one PAGES frame: pages of one kind
// join into one record while their order allows it. It is reused, so that sending allocates nothing.
// It is for one goroutine at a time; a sealed batch may be handed to another.
type Batch struct {
	view  *buffer.View // room for the frame's header, then the records
	limit int          // of the view, in bytes
	crc   uint32       // of the payload that is sent

	run    run  // the open one
	before mark // the last append: what Retract goes back to

	entry  [maxEntryBytes]byte // of lines, while it is made
	packed []byte              // what Compress made: room for the frame's header, then the payload
}

// run is a record that may still grow.
type run struct {
	at    int // offset in the view of its header
	kind  Kind
	first uint64
	last  uint64
	count uint32
}

// joins reports whether a page of the given kind can be the run's next.
func (r *run) joins(kind Kind, number uint64) bool {
	if kind == KindLines {
		return r.kind == kind && number > r.last
	}
	return r.kind == kind && number == r.last+1
}

// mark is a state of a batch.
type mark struct {
	size int // of the view
	run  run
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
	b.packed = b.packed[:0]
	b.run = run{}
	b.before = b.mark()
}

// SizeBytes is the size of the records, before any compression.
func (b *Batch) SizeBytes() int { return b.view.Size() - HeaderBytes }

// Full reports that a page might not fit any more, in whatever form.
func (b *Batch) Full() bool { return b.view.Size()+MinBatchBytes > b.limit }

// AppendPage copies a page of content into the batch and returns the copy, which the caller only
// reads. It is the copy that is sent, hashed or compared, since the guest goes on writing to page
// itself (design law 2). Precondition: not Full.
func (b *Batch) AppendPage(number uint64, page []byte) []byte {
	b.extend(KindData, number)
	_, _ = b.view.Write(page) // there is room
	all := b.view.AsSlice()
	return all[len(all)-memory.PageSize:]
}

// AppendZero says that a page is zero. Precondition: not Full.
func (b *Batch) AppendZero(number uint64) { b.extend(KindZero, number) }

// Retract takes back the page appended last, in whatever form. The record that was open before it can
// grow again. There is one step back: a second one does nothing.
func (b *Batch) Retract() {
	b.view.CapLength(b.before.size)
	b.run = b.before.run
}

func (b *Batch) mark() mark { return mark{size: b.view.Size(), run: b.run} }

// extend adds the page to the open run, or closes that and opens another.
func (b *Batch) extend(kind Kind, number uint64) {
	b.before = b.mark()
	if b.run.joins(kind, number) {
		b.run.count++
		b.run.last = number
		return
	}
	b.closeRun()
	b.run = run{at: b.view.Size(), kind: kind, first: number, last: number, count: 1}
	var head [RecordBytes]byte
	_, _ = b.view.Write(head[:])
}

// closeRun completes the header of the open run.
func (b *Batch) closeRun() {
	if b.run.kind == KindInvalid {
		return
	}
	var head [RecordBytes]byte
	size := 0
	if b.run.kind == KindLines {
		size = b.view.Size() - b.run.at - RecordBytes
	}
	putRecord(&head, b.run.kind, b.run.first, b.run.count, size)
	_, _ = b.view.WriteAt(head[:], b.run.at)
}

// Seal ends the last run and takes the checksum of the records. A sealed batch takes no more records
// before Reset.
func (b *Batch) Seal() {
	b.closeRun()
	b.crc = crc32.Checksum(b.view.AsSlice()[HeaderBytes:], castagnoli())
}
