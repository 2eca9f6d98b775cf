package wire

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// changes are typical ones of a line, by name.
var changes = []struct {
	name string
	make func(rng *rand.Rand, line []byte)
}{
	{"counter", func(rng *rand.Rand, line []byte) { line[rng.IntN(8)*8]++ }},
	{"word", func(rng *rand.Rand, line []byte) { binary.LittleEndian.PutUint64(line[rng.IntN(8)*8:], rng.Uint64()) }},
	{"bytes", func(rng *rand.Rand, line []byte) {
		for range 16 {
			line[rng.IntN(lineBytes)]++
		}
	}},
	{"pointers", func(rng *rand.Rand, line []byte) {
		for at := 0; at < lineBytes; at += 8 {
			binary.LittleEndian.PutUint32(line[at:], rng.Uint32())
		}
	}},
}

const benchPages = 256 // more than a branch predictor learns by heart

// changed are pages that differ from their twins in some of their lines, at even distances.
func changed(lines int, change func(*rand.Rand, []byte)) (fresh, old [][]byte, masks []uint64) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range benchPages {
		twin := randomPage(rng)
		page := append([]byte(nil), twin...)
		mask := uint64(0)
		for i := rng.IntN(memory.PageSize / lineBytes / lines); i < memory.PageSize/lineBytes; i += memory.PageSize / lineBytes / lines {
			change(rng, page[i*lineBytes:][:lineBytes])
			mask |= 1 << i
		}
		fresh, old, masks = append(fresh, gather(page, mask)), append(old, gather(twin, mask)), append(masks, mask)
	}
	return fresh, old, masks
}

func BenchmarkAppendDelta(b *testing.B) {
	for _, c := range changes {
		for _, lines := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/lines=%d", c.name, lines), func(b *testing.B) {
				fresh, old, masks := changed(lines, c.make)
				batch := NewBatch(MaxBatchBytes)
				n, size := uint64(0), 0
				for b.Loop() {
					if batch.Full() {
						batch.Reset()
					}
					i := n % benchPages
					size += batch.AppendDelta(n, masks[i], fresh[i], old[i])
					n++
				}
				b.ReportMetric(float64(size)/float64(n), "B/page")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n)/float64(lines), "ns/line")
			})
		}
	}
}

func BenchmarkApply(b *testing.B) {
	for _, c := range changes {
		for _, lines := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/lines=%d", c.name, lines), func(b *testing.B) {
				fresh, old, masks := changed(lines, c.make)
				batch := NewBatch(MaxBatchBytes)
				for i := range fresh {
					batch.AppendDelta(uint64(i), masks[i], fresh[i], old[i])
				}
				rec, _, err := nextRecord(payload(batch))
				if err != nil {
					b.Fatal(err)
				}
				r := rec.entries()
				var page [memory.PageSize]byte
				n := 0
				for b.Loop() {
					_, body, ok, err := r.next()
					if !ok {
						if err != nil {
							b.Fatal(err)
						}
						r = rec.entries()
						continue
					}
					if err := body.Apply(page[:]); err != nil {
						b.Fatal(err)
					}
					n++
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n)/float64(lines), "ns/line")
			})
		}
	}
}

func BenchmarkAppendLines(b *testing.B) {
	for _, lines := range []int{1, 64} {
		b.Run(fmt.Sprintf("lines=%d", lines), func(b *testing.B) {
			fresh, _, masks := changed(lines, changes[0].make)
			batch := NewBatch(MaxBatchBytes)
			for n := uint64(0); b.Loop(); n++ {
				if batch.Full() {
					batch.Reset()
				}
				batch.AppendLines(n, masks[n%benchPages], fresh[n%benchPages])
			}
		})
	}
}

// BenchmarkAbsent is the worst set, every other page, of a GiB.
func BenchmarkAbsent(b *testing.B) {
	mem, err := memory.New([]memory.Region{{SizeBytes: 1 << 30}}, memory.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer mem.Close()
	set := mem.NewPageSet()
	for page := memory.GPA(0); page < 1<<18; page += 2 {
		set.Add(page * memory.PageSize)
	}
	var payload []byte
	b.Run("append", func(b *testing.B) {
		for b.Loop() {
			payload = AppendAbsent(payload[:0], set.Range)
		}
	})
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if err := DecodeAbsent(payload, 1<<18, func(_, _ uint64) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
