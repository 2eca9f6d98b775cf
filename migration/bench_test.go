package migration

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
)

// BenchmarkMigrate moves 256 MiB of content within one process; the guest is idle.
func BenchmarkMigrate(b *testing.B) {
	b.Run("unix", func(b *testing.B) {
		benchmarkMigrate(b, Address{network: "unix", address: filepath.Join(b.TempDir(), "s")}, nil)
	})
	tcp := Address{network: "tcp", address: "127.0.0.1:0"}
	b.Run("tcp", func(b *testing.B) { benchmarkMigrate(b, tcp, nil) })
	b.Run("tls", func(b *testing.B) { benchmarkMigrate(b, tcp, newPKI(b).good()) })
}

func benchmarkMigrate(b *testing.B, at Address, security *tls.Config) {
	const pages = 65536
	var downtime, rate float64
	for b.Loop() {
		b.StopTimer()
		src, dst := newMachine(b, &world{}, source, pages), newMachine(b, &world{}, destination, pages)
		for _, r := range src.mem.Regions() {
			for off := uint64(0); off < r.SizeBytes; off += memory.PageSize {
				if err := src.mem.StoreUint64(r.Base+memory.GPA(off), off+1); err != nil {
					b.Fatal(err)
				}
			}
		}
		l, err := Listen(context.Background(), at, ListenOptions{
			TLS: security, Journal: journal.New("/j", nullSink{}, nil), hooks: hooks{plan: &inject.Plan{}},
		})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		received := make(chan error, 1)
		go func() {
			_, err := l.Receive(context.Background(), dst)
			received <- err
		}()
		r, err := Send(context.Background(), src, l.Address(), SendOptions{
			MachineID: "guest", TLS: security, Journal: journal.New("/j", nullSink{}, nil), hooks: hooks{plan: &inject.Plan{}},
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := <-received; err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		downtime += r.DowntimeMS
		rate += r.BandwidthBytesPerS
		dst.end()
		l.Close()
		b.StartTimer()
	}
	b.SetBytes(pages * memory.PageSize)
	b.ReportMetric(downtime/float64(b.N), "downtime-ms")
	b.ReportMetric(rate/float64(b.N)/1e6, "MB/s-measured")
}
