package memory

import "runtime"

// The ordered accesses are for words that the guest and the VMM share: rings,
// indices, flags. Each is one indivisible access. A load is an acquire: what
// the other side stored before the value it left is seen after. A store is
// sequentially consistent, which is more than a release: a load after it is
// not taken before it, as virtio's "publish the index, then look whether to
// notify" needs (virtio 1.2, 2.7.13.4, and its mirror in the device).

// LoadUint8 loads the byte at gpa.
func (g *Guest) LoadUint8(gpa GPA) (uint8, error) {
	i, off, err := g.word(gpa, 1)
	if err != nil {
		return 0, err
	}
	v := g.rams[i].load8(off)
	runtime.KeepAlive(g)
	return v, nil
}

// LoadUint16 loads the little-endian word at gpa, a multiple of 2.
func (g *Guest) LoadUint16(gpa GPA) (uint16, error) {
	i, off, err := g.word(gpa, 2)
	if err != nil {
		return 0, err
	}
	v := g.rams[i].load16(off)
	runtime.KeepAlive(g)
	return v, nil
}

// LoadUint32 loads the little-endian word at gpa, a multiple of 4.
func (g *Guest) LoadUint32(gpa GPA) (uint32, error) {
	i, off, err := g.word(gpa, 4)
	if err != nil {
		return 0, err
	}
	v := g.rams[i].load32(off)
	runtime.KeepAlive(g)
	return v, nil
}

// LoadUint64 loads the little-endian word at gpa, a multiple of 8.
func (g *Guest) LoadUint64(gpa GPA) (uint64, error) {
	i, off, err := g.word(gpa, 8)
	if err != nil {
		return 0, err
	}
	v := g.rams[i].load64(off)
	runtime.KeepAlive(g)
	return v, nil
}

// StoreUint8 stores the byte at gpa and marks its page dirty.
func (g *Guest) StoreUint8(gpa GPA, v uint8) error {
	i, off, err := g.word(gpa, 1)
	if err != nil {
		return err
	}
	g.rams[i].store8(off, v)
	g.mark(i, off, 1)
	runtime.KeepAlive(g)
	return nil
}

// StoreUint16 stores the little-endian word at gpa, a multiple of 2, and marks
// its page dirty.
func (g *Guest) StoreUint16(gpa GPA, v uint16) error {
	i, off, err := g.word(gpa, 2)
	if err != nil {
		return err
	}
	g.rams[i].store16(off, v)
	g.mark(i, off, 2)
	runtime.KeepAlive(g)
	return nil
}

// StoreUint32 stores the little-endian word at gpa, a multiple of 4, and marks
// its page dirty.
func (g *Guest) StoreUint32(gpa GPA, v uint32) error {
	i, off, err := g.word(gpa, 4)
	if err != nil {
		return err
	}
	g.rams[i].store32(off, v)
	g.mark(i, off, 4)
	runtime.KeepAlive(g)
	return nil
}

// StoreUint64 stores the little-endian word at gpa, a multiple of 8, and marks
// its page dirty.
func (g *Guest) StoreUint64(gpa GPA, v uint64) error {
	i, off, err := g.word(gpa, 8)
	if err != nil {
		return err
	}
	g.rams[i].store64(off, v)
	g.mark(i, off, 8)
	runtime.KeepAlive(g)
	return nil
}
