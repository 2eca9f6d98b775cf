package wire

import (
	"encoding/binary"

	"github.com/fineline-vmm/fineline/memory"
)

// Kind says what a page record holds.
type Kind uint8

// The kinds of records.
const (
	KindInvalid Kind = iota
	KindData         // count pages of content follow
	KindZero         // count pages are zero, nothing follows
	KindLines        // entries of count pages follow, each with the page's changed lines
	kindCount
)

// RecordBytes is the size of a record's header; the package's documentation has its fields.
const RecordBytes = 16

// maxPages bounds page numbers: one beyond has no 64-bit address.
const maxPages = 1 << 52

// putRecord writes a record's header.
func putRecord(head *[RecordBytes]byte, kind Kind, first uint64, count uint32, size int) {
	binary.LittleEndian.PutUint64(head[0:], first)
	binary.LittleEndian.PutUint32(head[8:], uint32(kind)|uint32(size)<<8)
	binary.LittleEndian.PutUint32(head[12:], count)
}

// Record is one record of a PAGES frame. The pages of KindData and KindZero are neighbours; those of
// KindLines ascend from First, and EachEntry goes through them.
type Record struct {
	Kind  Kind
	First uint64 // page number
	Count uint32
	Data  []byte // Count pages for KindData, Count entries for KindLines; borrowed from the frame
}

// EachRecord calls fn for the records of a PAGES payload, in order, and ends with the first that is malformed or the first
// error of fn. It checks the form, of entries only the size; whether the pages exist is checked by whoever owns the memory.
func EachRecord(payload []byte, fn func(Record) error) error {
	for len(payload) > 0 {
		rec, rest, err := nextRecord(payload)
		if err == nil {
			err = fn(rec)
		}
		if err != nil {
			return err
		}
		payload = rest
	}
	return nil
}

// nextRecord splits the first record off.
func nextRecord(payload []byte) (rec Record, rest []byte, err error) {
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
	size := uint64(binary.LittleEndian.Uint32(head[8:]) >> 8)
	switch {
	case rec.Kind == KindInvalid || rec.Kind >= kindCount:
		return Record{}, nil, protocolErrorf("a page record has kind %d", rec.Kind)
	case rec.Count == 0 || rec.First > maxPages-uint64(rec.Count):
		return Record{}, nil, protocolErrorf("a page record has %d pages from page %d", rec.Count, rec.First)
	case rec.Kind != KindLines && size != 0:
		return Record{}, nil, protocolErrorf("a page record has reserved bits set")
	case rec.Kind == KindLines && size < uint64(rec.Count)*minEntryBytes:
		return Record{}, nil, protocolErrorf("a page record has the lines of %d pages in %d bytes", rec.Count, size)
	case rec.Kind == KindData:
		size = uint64(rec.Count) * memory.PageSize
	}
	if size > uint64(len(rest)) {
		return Record{}, nil, protocolErrorf("a page record has %d pages and %d of %d bytes", rec.Count, len(rest), size)
	}
	rec.Data = rest[:size]
	return rec, rest[size:], nil
}
