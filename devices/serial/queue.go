package serial

// QueueBytes is how much output waits for a slow host before the guest sees the
// transmitter full. State holds at most as much.
const QueueBytes = 64 << 10

// queue is a ring of bytes. Bytes that front returned stay in place until drop.
type queue struct {
	buf  []byte // nil until the first byte: many machines never print
	head int
	size int
}

func (q *queue) room() int { return QueueBytes - q.size }

// push appends b and reports whether there was room.
func (q *queue) push(b byte) bool {
	if q.room() == 0 {
		return false
	}
	if q.buf == nil {
		q.buf = make([]byte, QueueBytes)
	}
	q.buf[(q.head+q.size)%QueueBytes] = b
	q.size++
	return true
}

// front returns up to limit of the oldest bytes that lie in one piece.
func (q *queue) front(limit int) []byte {
	return q.buf[q.head : q.head+min(limit, q.size, QueueBytes-q.head)]
}

// drop removes the n oldest bytes.
func (q *queue) drop(n int) {
	q.head = (q.head + n) % QueueBytes
	q.size -= n
}

// bytes returns a copy of all bytes, oldest first.
func (q *queue) bytes() []byte {
	p := make([]byte, 0, q.size)
	first := q.front(q.size)
	p = append(p, first...)
	return append(p, q.buf[:q.size-len(first)]...)
}
