package vmm

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// The pages that processors use by themselves, in each form of page tables; and what a guest may write into its
// registers to keep the search busy.
func TestReservedPages(t *testing.T) {
	const long, la57, pae, paging = 1 << 10, 1 << 12, 1 << 5, 1 << 31
	mem, err := memory.New([]memory.Region{{SizeBytes: 1 << 20}}, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for at, v := range map[memory.GPA]uint64{
		0x1000: 0x2001, 0x2000: 0x3001, 0x3000: 0x4001, 0x4000: 0x5001, 0x4008: 0x6001, // 0 and 0x1000 are at 0x5000 and 0x6000
		0x3008: 0x3001,       // a table that is its own
		0x3010: 0xfffffff001, // one that is no RAM
		0x6004: ^uint64(0),   // RSP0 of the task at 0x1000
		0x600c: 0x2000,       // RSP1: the page below is the one at 0x1000, and the one at 0
		0x8020: 0x9001,       // PAE's root at 0x8020
		0x9000: 0x81,         // a large page at 0
	} {
		if err := mem.WriteAt(at, binary.LittleEndian.AppendUint64(nil, v)); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		s    kvm.Sregs
		want []memory.GPA
	}{
		{"no paging", kvm.Sregs{GDT: kvm.Descriptor{Base: 0x7ff8, Limit: 15}, IDT: kvm.Descriptor{Base: 0xa000, Limit: 0}},
			[]memory.GPA{0, 0x7000, 0x8000, 0xa000}},
		{"four levels", kvm.Sregs{
			CR0: paging, CR3: 0x1018, EFER: long, GDT: kvm.Descriptor{Base: 8, Limit: 7}, TR: kvm.Segment{Base: 0x1000, Limit: 103},
		}, []memory.GPA{0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000}},
		{"five levels end early", kvm.Sregs{CR0: paging, CR3: 0x1000, CR4: la57, EFER: long}, []memory.GPA{0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000}},
		{"PAE", kvm.Sregs{CR0: paging, CR3: 0x8020, CR4: pae}, []memory.GPA{0, 0x8000, 0x9000}},
		{"the end of all addresses", kvm.Sregs{ // what is found does not matter, that it ends does
			GDT: kvm.Descriptor{Base: ^uint64(0xfff), Limit: 0xffe}, IDT: kvm.Descriptor{Base: ^uint64(0), Limit: 0xffff},
			TR: kvm.Segment{Base: ^uint64(0), Limit: ^uint32(0)},
		}, nil},
	} {
		var got []memory.GPA
		reservedPages(mem, []kvm.Sregs{test.s, test.s}, false).Range(func(gpa memory.GPA) bool { got = append(got, gpa); return true })
		if test.want != nil && !slices.Equal(got, test.want) {
			t.Errorf("%s: %#x, want %#x", test.name, got, test.want)
		}
	}
}
