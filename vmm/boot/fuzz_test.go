package boot

import (
	"bytes"
	"runtime"
	"testing"
)

// maxLoadAllocBytes is what one Load may allocate, whatever the file says: the stream buffer, the page tables
// and their copies while they grow, and the ledger.
const maxLoadAllocBytes = 1 << 20

func FuzzELF(f *testing.F) {
	wrapping := pvhKernel()
	wrapping.programs[0].paddr = ^uint64(0) - 4
	many := pvhKernel()
	for range 8 {
		many.programs = append(many.programs, testProgram{kind: elfPTNote, content: []byte("\xff\xff\xff\xff\xff\xff\xff\xffxxxx")})
	}
	narrow := pvhKernel()
	narrow.is64, narrow.machine = false, elfMachine386
	f.Add(pvhKernel().build(), []byte("initrd"))
	f.Add(narrow.build(), []byte(nil))
	f.Add(wrapping.build(), []byte("i"))
	f.Add(many.build(), []byte("i"))
	f.Add(multibootKernel(3).build(), []byte("module"))
	f.Add(append(multibootWords(mbFlagAddresses, oneMiB, oneMiB, 0, 0, oneMiB), "code"...), []byte("module"))
	f.Fuzz(fuzzLoad)
}

func FuzzBzImage(f *testing.F) {
	f.Add(bzImage(nil), []byte("initrd"))
	f.Add(bzImage(func(p []byte) { p[hdrRelocatable] = 0 }), []byte(nil))
	f.Add(bzImage(func(p []byte) { le.PutUint64(p[hdrPrefAddress:], ^uint64(0)) }), []byte("i"))
	f.Add(bzImage(func(p []byte) { le.PutUint32(p[hdrInitSize:], ^uint32(0)) }), []byte("i"))
	f.Add(bzImage(func(p []byte) { p[hdrJumpOffset] = 0xff }), []byte("i"))
	f.Add(bzImage(nil)[:0x300], []byte("i"))
	f.Fuzz(fuzzLoad)
}

// fuzzLoad loads whatever it is given. The fake memory reports stores outside free RAM by itself.
func fuzzLoad(t *testing.T, kernel, initrd []byte) {
	m := newFakeMemory(t, testRAMBytes)
	m.pages = nil
	src := Source{Kernel: bytes.NewReader(kernel), KernelSizeBytes: int64(len(kernel)), Cmdline: "a=b"}
	if len(initrd) > 0 {
		src.Initrd, src.InitrdSizeBytes = bytes.NewReader(initrd), int64(len(initrd))
	}
	params := Params{E820: testE820(m.ram), RSDP: testRSDP, Occupied: testOccupied}

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	e, err := Load(m, src, params)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > maxLoadAllocBytes {
		t.Errorf("%d bytes were allocated for a file of %d", got, len(kernel))
	}
	if err != nil {
		if e != (Entry{}) {
			t.Errorf("an entry beside the error %v", err)
		}
		return
	}
	if !contains(m.free, span{start: e.RIP, end: e.RIP + 1}) || e.GDT == 0 || e.Mode.String() == "no mode" || e.Protocol == "" {
		t.Errorf("unusable entry %+v", e)
	}
	if (e.Mode == Long64) != (e.CR3 != 0) {
		t.Errorf("page tables do not fit the mode: %+v", e)
	}
}
