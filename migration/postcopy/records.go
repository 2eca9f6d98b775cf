package postcopy

import (
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// arrival is what came of one page, borrowed from its frame.
type arrival struct {
	whole []byte        // its content
	lines wire.LineBody // if that is nil: lines of it
}

// put stores it into the page, which holds what the destination had.
func (it *arrival) put(page []byte) error {
	if it.whole != nil {
		copy(page, it.whole)
		return nil
	}
	return it.lines.Apply(page)
}

// eachPage calls fn for the pages of a PAGES frame.
func eachPage(payload []byte, fn func(page uint64, it arrival) error) error {
	if len(payload) == 0 {
		return protocolErrorf("a frame without pages")
	}
	return wire.EachRecord(payload, func(rec wire.Record) error {
		if rec.Kind == wire.KindLines {
			return rec.EachEntry(func(page uint64, lines wire.LineBody) error { return fn(page, arrival{lines: lines}) })
		}
		return eachWhole(rec, fn)
	})
}

func eachWhole(rec wire.Record, fn func(page uint64, it arrival) error) error {
	for i := range uint64(rec.Count) {
		it := arrival{whole: zeroPage[:]}
		if rec.Kind == wire.KindData {
			it.whole = rec.Data[i*memory.PageSize:][:memory.PageSize]
		}
		if err := fn(rec.First+i, it); err != nil {
			return err
		}
	}
	return nil
}
