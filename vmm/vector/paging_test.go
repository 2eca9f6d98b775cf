package vector

import (
	"errors"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// One page table a level, the entry of va in each.
func TestTranslate(t *testing.T) {
	const (
		va     = 0x7f12_3456_7abc
		user   = 0x67 // present, writable, user, accessed, dirty
		page   = 0x00ab_c000
		top    = 0x1000
		cr0WP  = cr0WriteProtect
		noUser = user &^ entryUser
	)
	tables := func(leaf uint64, large int) map[memory.GPA]uint64 {
		all := map[memory.GPA]uint64{}
		for level := 4; level >= 1; level-- {
			at := memory.GPA(top*(5-level) + int(va>>(12+9*(level-1))&0x1ff*8))
			all[at] = uint64(top*(6-level)) | user
			if level == large {
				all[at] = leaf
			}
		}
		return all
	}
	for _, tt := range []struct {
		name  string
		p     paging
		leaf  uint64
		large int // level of the leaf
		write bool
		want  memory.GPA
		err   error
	}{
		{"load", paging{user: true}, page | user, 1, false, page | 0xabc, nil},
		{"store", paging{user: true}, page | user, 1, true, page | 0xabc, nil},
		{"the top bits are no address", paging{user: true}, page | user | 0xfff<<52, 1, true, page | 0xabc, nil},
		{"2 MiB", paging{user: true}, 0x4000_0000 | 1<<12 | user | entryLarge, 2, true, 0x4000_0000 | va&0x1f_ffff, nil},
		{"1 GiB", paging{user: true}, 0x8000_0000 | 1<<12 | user | entryLarge, 3, true, 0x8000_0000 | va&0x3fff_ffff, nil},
		{"not present", paging{user: true}, page | user&^entryPresent, 1, false, 0, ErrNotMapped},
		{"a page of the kernel", paging{user: true}, page | noUser, 1, false, page | 0xabc, ErrNotPermitted},
		{"the kernel's own", paging{}, page | noUser, 1, true, page | 0xabc, nil},
		{"read-only, load", paging{user: true}, page | user&^entryWritable, 1, false, page | 0xabc, nil},
		{"read-only, store", paging{user: true}, page | user&^entryWritable, 1, true, page | 0xabc, ErrNotPermitted},
		{"read-only to the kernel too", paging{cr0: cr0WP}, page | user&^entryWritable, 1, true, page | 0xabc, ErrNotPermitted},
		{"but not without CR0.WP", paging{}, page | user&^entryWritable, 1, true, page | 0xabc, nil},
		{"never accessed", paging{user: true}, page | user&^entryAccessed, 1, false, page | 0xabc, ErrNotPermitted},
		{"clean, load", paging{user: true}, page | user&^entryDirty, 1, false, page | 0xabc, nil},
		{"clean, store", paging{user: true}, page | user&^entryDirty, 1, true, page | 0xabc, ErrNotPermitted},
		{"SMAP", paging{cr4: cr4SMAP}, page | user, 1, false, page | 0xabc, ErrNotPermitted},
		{"SMAP with AC", paging{cr4: cr4SMAP, ac: true}, page | user, 1, false, page | 0xabc, nil},
		{"a protection key", paging{cr4: 1 << 22, user: true}, page | user | 3<<entryKeyShift, 1, false, page | 0xabc, ErrNotPermitted},
	} {
		entries := tables(tt.leaf, tt.large)
		p := tt.p
		p.cr3 = top | 0x18
		p.load = func(gpa memory.GPA) (uint64, error) {
			if v, ok := entries[gpa]; ok {
				return v, nil
			}
			return 0, memory.ErrOutOfRange
		}
		got, err := p.translate(va, tt.write)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: %#x, %v; want %#x, %v", tt.name, got, err, tt.want, tt.err)
		}
		if _, err := p.translate(va+1<<30, false); !errors.Is(err, ErrNotMapped) || !errors.Is(err, memory.ErrOutOfRange) {
			t.Errorf("%s: a table outside RAM: %v", tt.name, err)
		}
	}
}

// With five levels the top table has one more above it.
func TestTranslateFiveLevels(t *testing.T) {
	entries := map[memory.GPA]uint64{0x1008: 0x2067, 0x2000: 0x3067, 0x3000: 0x4067, 0x4000: 0x5067, 0x5000: 0x6067}
	p := paging{cr3: 0x1000, cr4: cr4LA57, user: true, load: func(gpa memory.GPA) (uint64, error) { return entries[gpa], nil }}
	if got, err := p.translate(1<<48|5, true); got != 0x6005 || err != nil {
		t.Errorf("%#x, %v", got, err)
	}
}
