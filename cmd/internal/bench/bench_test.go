package bench

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		sample []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{3, 1}, 2},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 100, 2}, 3},
	} {
		before := append([]float64(nil), c.sample...)
		if got := median(c.sample); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.sample, got, c.want)
		}
		if !reflect.DeepEqual(before, c.sample) {
			t.Errorf("median has reordered %v to %v", before, c.sample)
		}
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", 30: "30", 1234.5: "1234", 123.4: "123", 12.34: "12.3", 1.234: "1.23", 0.1234: "0.12", -1.5: "-1.50",
	} {
		if got := figure(v); got != want {
			t.Errorf("figure(%v) = %q, want %q", v, got, want)
		}
	}
}

func sampleReport() *Report {
	r := &Report{Bench: "boot", Host: Host{KVM: "software", CPUs: 2, MemoryBytes: 1 << 30}}
	r.add("first byte", "ms", "QEMU 7", []float64{3, 1, 2}, []float64{20, 10, 40})
	r.add("alone", "ms", "QEMU 7", []float64{5}, nil)
	r.add("mismatches", "lines", "QEMU 7", []float64{0}, []float64{0})
	return r
}

// TestJSON: the form is promised to scripts.
func TestJSON(t *testing.T) {
	got, err := json.Marshal(sampleReport())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"bench":"boot","host":{"kvm":"software","cpus":2,"memory_bytes":1073741824},"results":[` +
		`{"name":"first byte","unit":"ms","ours":2,"peer":20,"peer_name":"QEMU 7","ratio":0.1,"runs":3,` +
		`"spread":{"ours_min":1,"ours_max":3,"peer_min":10,"peer_max":40}},` +
		`{"name":"alone","unit":"ms","ours":5,"peer":0,"peer_name":"","ratio":0,"runs":1,` +
		`"spread":{"ours_min":5,"ours_max":5,"peer_min":0,"peer_max":0}},` +
		`{"name":"mismatches","unit":"lines","ours":0,"peer":0,"peer_name":"QEMU 7","ratio":0,"runs":1,` +
		`"spread":{"ours_min":0,"ours_max":0,"peer_min":0,"peer_max":0}}]}`
	if string(got) != want {
		t.Errorf("JSON is\n%s\nwant\n%s", got, want)
	}
}

func TestPrint(t *testing.T) {
	var out bytes.Buffer
	if err := sampleReport().Print(&out); err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		rows = append(rows, strings.Fields(line))
	}
	for i, want := range []string{
		"first byte ms 2 20 0.1 3 1-3 10-40 QEMU 7",
		"alone ms 5 - - 1 5 - -",
		"mismatches lines 0 0 - 1 0 0 QEMU 7",
	} {
		if got := strings.Join(rows[3+i], " "); got != want {
			t.Errorf("row %d is %q, want %q", i, got, want)
		}
	}
}

func TestLoopTicks(t *testing.T) {
	if got, err := loopTicks("Hello\nloop start\nloop end count=4000 tsc=40000000\n"); err != nil || got != 10000 {
		t.Errorf("loopTicks() = %v, %v", got, err)
	}
	for _, text := range []string{"", "loop start\n", "loop end tsc=\n", "loop end tsc=x\n"} {
		if _, err := loopTicks(text); err == nil {
			t.Errorf("loopTicks(%q) succeeds", text)
		}
	}
}

func TestOwnMiB(t *testing.T) {
	const status = "VmRSS:\t   90000 kB\nRssAnon:\t    2048 kB\nRssFile:\t    1024 kB\nRssShmem:\t   86928 kB\n"
	if got, err := ownMiB(status); err != nil || got != 3 {
		t.Errorf("ownMiB() = %v, %v", got, err)
	}
	for _, text := range []string{"", "RssAnon:\t 1 kB\n", "RssAnon: x kB\nRssFile: 1 kB\n"} {
		if _, err := ownMiB(text); err == nil {
			t.Errorf("ownMiB(%q) succeeds", text)
		}
	}
}
