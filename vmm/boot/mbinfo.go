package boot

import "encoding/binary"

// writeMultibootInfo stores the information structure and what it points to.
func (l *loader) writeMultibootInfo(initrd span) error {
	le := binary.LittleEndian
	lowerKiB, upperKiB := l.multibootMemory()
	memmap := l.multibootMemmap()
	info := make([]byte, mbInfoBytes)
	flags := uint32(mbInfoMemory | mbInfoCmdline | mbInfoMemmap | mbInfoLoaderName)
	le.PutUint32(info[4:], lowerKiB)
	le.PutUint32(info[8:], upperKiB)
	le.PutUint32(info[16:], uint32(l.area+cmdlinePage))
	le.PutUint32(info[44:], uint32(len(memmap)))
	le.PutUint32(info[48:], uint32(l.area+mbMemmap))
	le.PutUint32(info[64:], uint32(l.area+mbLoaderName))
	stores := []store{{l.area + mbLoaderName, []byte("fineline\x00")}, {l.area + mbMemmap, memmap}}
	if initrd.end > 0 {
		flags |= mbInfoModules
		le.PutUint32(info[20:], 1)
		le.PutUint32(info[24:], uint32(l.area+mbModules))
		module := make([]byte, mbModuleEntryBytes)
		le.PutUint32(module[0:], uint32(initrd.start))
		le.PutUint32(module[4:], uint32(initrd.end))
		le.PutUint32(module[8:], uint32(l.area+mbModuleName))
		stores = append(stores, store{l.area + mbModules, module}, store{l.area + mbModuleName, []byte("initrd\x00")})
	}
	le.PutUint32(info[0:], flags)
	return l.store(append(stores, store{l.area + infoPage, info})...)
}

// multibootMemory returns the KiB of RAM from 0 (at most 640) and from 1 MiB up to the first hole.
func (l *loader) multibootMemory() (lowerKiB, upperKiB uint32) {
	for _, s := range l.room.usable {
		if s.start == 0 {
			lowerKiB = uint32(min(s.end, 640<<10) >> 10)
		}
		if s.start <= oneMiB && s.end > oneMiB {
			upperKiB = uint32(min((s.end-oneMiB)>>10, 1<<32-1))
		}
	}
	return lowerKiB, upperKiB
}

// multibootMemmap encodes the memory map; an entry's size field does not count itself.
func (l *loader) multibootMemmap() []byte {
	le := binary.LittleEndian
	memmap := make([]byte, len(l.p.E820)*mbMemmapEntryBytes)
	for i, e := range l.p.E820 {
		p := memmap[i*mbMemmapEntryBytes:]
		le.PutUint32(p[0:], mbMemmapEntryBytes-4)
		le.PutUint64(p[4:], uint64(e.Base))
		le.PutUint64(p[12:], e.SizeBytes)
		le.PutUint32(p[20:], uint32(e.Type))
	}
	return memmap
}
