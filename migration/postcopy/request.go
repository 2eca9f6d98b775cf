package postcopy

import (
	"encoding/binary"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// maxRequest is how many pages one REQUEST names at most: the missed one and the predicted ones.
const maxRequest = 64

// request is the content of a REQUEST frame; the first page is the missed one.
type request struct {
	pages [maxRequest]uint64
	count int
}

func (r *request) add(page uint64) {
	r.pages[r.count] = page
	r.count++
}

// encode writes the payload to buf and returns it.
func (r *request) encode(buf *[8 * maxRequest]byte) []byte {
	for i, page := range r.pages[:r.count] {
		binary.LittleEndian.PutUint64(buf[8*i:], page)
	}
	return buf[:8*r.count]
}

// decode checks the form; whether the pages exist is checked by whoever answers.
func (r *request) decode(payload []byte) error {
	if len(payload) == 0 || len(payload)%8 != 0 || len(payload) > 8*maxRequest {
		return protocolErrorf("%s of %d bytes", wire.TypeRequest, len(payload))
	}
	r.count = len(payload) / 8
	for i := range r.count {
		r.pages[i] = binary.LittleEndian.Uint64(payload[8*i:])
	}
	return nil
}
