package migration

import (
	"bytes"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// encoder decides what of a page is sent. A granularity is one encoder here and one kind of record in
// package wire.
type encoder interface {
	// granularity is what the result calls it.
	granularity() string
	// encode appends to b what the destination lacks of the page, and counts it. page changes while
	// it is read: only the copy in b means anything. Precondition: b is not full.
	encode(gpa memory.GPA, page []byte, b *wire.Batch, sum *tally)
}

// tally counts what one round put on the wire.
type tally struct {
	pages     uint64 // with content
	lines     uint64
	zeroPages uint64 // found zero
	zeroSent  uint64 // of these, the ones that the destination must be told of
}

const linesPerPage = memory.PageSize / 64

// pageEncoder sends whole pages, and zero pages only where content was sent before.
type pageEncoder struct {
	sent *memory.PageSet // pages whose content at the destination may be other than zero
}

func newPageEncoder(mem *memory.Guest) *pageEncoder {
	return &pageEncoder{sent: mem.NewPageSet()}
}

func (*pageEncoder) granularity() string { return "page" }

var zeroPage [memory.PageSize]byte

func (e *pageEncoder) encode(gpa memory.GPA, page []byte, b *wire.Batch, sum *tally) {
	number := uint64(gpa) / memory.PageSize
	// Copy first and judge the copy: a page judged in place may be written before it is copied, and
	// that store is in neither of two rounds' records if the judgement said "zero" (design law 2).
	taken := b.AppendPage(number, page)
	if !bytes.Equal(taken, zeroPage[:]) {
		e.sent.Add(gpa)
		sum.pages++
		sum.lines += linesPerPage
		return
	}
	b.RetractPage()
	sum.zeroPages++
	if e.sent.Has(gpa) {
		b.AppendZero(number)
		sum.zeroSent++
	}
}
