package qemu

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// migration is a script of QEMU 7.2's messages.
type migration struct {
	statuses      []string // of the events after migrate, in order
	sawContinue   bool
	timesLate     int      // so many answers of query-migrate have no times yet
	transferred   []uint64 // successive answers of query-migrate
	downtimeLimit []float64
	bandwidth     []float64
	afterLimit    []string // when the downtime limit is changed
	afterPostcopy []string // when post-copy is started
	capabilities  string
	commands      []string
}

func status(s string) string {
	return `{"timestamp": {"seconds": 100, "microseconds": 9000}, "event": "MIGRATION", "data": {"status": "` + s + `"}}`
}

func pass(n, microseconds int) string {
	return fmt.Sprintf(`{"timestamp": {"seconds": 100, "microseconds": %d}, "event": "MIGRATION_PASS", "data": {"pass": %d}}`, microseconds, n)
}

const stop = `{"timestamp": {"seconds": 100, "microseconds": 2000}, "event": "STOP"}`

func (q *migration) source(command string, arguments json.RawMessage) []string {
	const done = `{"return": {}}`
	q.commands = append(q.commands, command)
	switch command {
	case "migrate-set-capabilities":
		q.capabilities = string(arguments)
	case "migrate-start-postcopy":
		return append([]string{done}, q.afterPostcopy...)
	case "migrate":
		return append([]string{done}, q.statuses...)
	case "migrate-set-parameters":
		var p map[string]float64
		if json.Unmarshal(arguments, &p) != nil {
			return []string{done} // other parameters than limits
		}
		if rate, ok := p["max-bandwidth"]; ok {
			q.bandwidth = append(q.bandwidth, rate)
		}
		if _, ok := p["downtime-limit"]; !ok {
			return []string{done}
		}
		q.downtimeLimit = append(q.downtimeLimit, p["downtime-limit"])
		if len(q.downtimeLimit) > 1 {
			return append([]string{done}, q.afterLimit...)
		}
	case "query-migrate":
		n := q.transferred[0]
		q.transferred = q.transferred[1:]
		fields := map[string]any{
			"status": "completed", "error-desc": "the link broke",
			"ram": map[string]any{"transferred": n, "normal": n / 1000, "dirty-sync-count": 3, "postcopy-requests": 7},
		}
		if q.timesLate--; q.timesLate < 0 {
			fields["total-time"], fields["downtime"] = 150, 8
		}
		answer, _ := json.Marshal(fields)
		return []string{`{"return": ` + string(answer) + `}`}
	case "migrate-continue":
		q.sawContinue = true
		return []string{done, status("device"), status("completed")}
	}
	return []string{done}
}

func destination(command string, _ json.RawMessage) []string {
	answer := []string{`{"return": {}}`}
	if command == "migrate-incoming" {
		answer = append(answer, status("active"), `{"timestamp": {"seconds": 100, "microseconds": 12500}, "event": "RESUME"}`)
	}
	return answer
}

func TestMigrate(t *testing.T) {
	q := &migration{
		statuses:    []string{status("setup"), status("active"), stop, status("device"), status("completed")},
		transferred: []uint64{1 << 20, 1 << 20, 1 << 20},
		timesLate:   2,
	}
	r, err := Migrate(guarded(t), connect(t, q.source), connect(t, destination), MigrationOptions{
		From: "unix:/x", To: "unix:/x", MaxDowntime: 5 * time.Millisecond, Patience: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Migration{
		TotalMS: 150, DowntimeMS: 10.5, OwnDowntimeMS: 8, SourceMS: 7, BytesSent: 1 << 20, Rounds: 3, Converged: true, Requests: 7,
	}
	if !reflect.DeepEqual(*r, want) {
		t.Errorf("Migrate() = %+v, want %+v", *r, want)
	}
	if len(q.downtimeLimit) != 1 || q.downtimeLimit[0] != 5 {
		t.Errorf("downtime limits %v", q.downtimeLimit)
	}
}

func TestMigrateCountsTheDowntime(t *testing.T) {
	q := &migration{
		statuses:    []string{status("active"), stop, status("pre-switchover")},
		transferred: []uint64{1000, 1600},
	}
	r, err := Migrate(guarded(t), connect(t, q.source), connect(t, destination), MigrationOptions{
		From: "unix:/x", To: "unix:/x", MaxDowntime: time.Second, Patience: time.Hour, CountDowntime: true,
	})
	if err != nil || !q.sawContinue || r.BytesSent != 1600 || r.BytesInDowntime != 600 {
		t.Errorf("Migrate() = %+v, %v", r, err)
	}
}

func TestMigrateLosesPatience(t *testing.T) {
	q := &migration{
		statuses:    []string{status("active")},
		afterLimit:  []string{stop, status("completed")},
		transferred: []uint64{1},
	}
	r, err := Migrate(guarded(t), connect(t, q.source), connect(t, destination), MigrationOptions{
		From: "unix:/x", To: "unix:/x", MaxDowntime: time.Millisecond, Patience: time.Nanosecond,
	})
	if err != nil || r.Converged {
		t.Fatalf("Migrate() = %+v, %v", r, err)
	}
	if n := len(q.downtimeLimit); n != 2 || q.downtimeLimit[1] != anyDowntimeMS {
		t.Errorf("downtime limits %v", q.downtimeLimit)
	}
}

func TestMigrateFails(t *testing.T) {
	q := &migration{statuses: []string{status("active"), status("failed")}, transferred: []uint64{1}}
	_, err := Migrate(guarded(t), connect(t, q.source), connect(t, destination), MigrationOptions{Patience: time.Hour})
	if err == nil || !strings.Contains(err.Error(), "the link broke") {
		t.Errorf("Migrate(): %v", err)
	}
}

// TestMigratePostcopy: it is started at once, ends with the last page, and the caller is told when the guest runs.
func TestMigratePostcopy(t *testing.T) {
	setting, err := Choose("qemu-postcopy", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	last := `{"timestamp": {"seconds": 100, "microseconds": 99500}, "event": "MIGRATION", "data": {"status": "completed"}}`
	q := &migration{
		afterPostcopy: []string{status("active"), status("postcopy-active"), stop, last},
		transferred:   []uint64{5000},
	}
	resumed := 0
	r, err := Migrate(guarded(t), connect(t, q.source), connect(t, destination), MigrationOptions{
		Setting: setting, Patience: time.Hour, CountDowntime: true, Resumed: func() { resumed++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	if resumed != 1 || r.DowntimeMS != 10.5 || r.AfterResumeMS != 87 || r.Requests != 7 || r.BytesInDowntime != 0 || r.SourceMS != 0 {
		t.Errorf("Migrate() = %+v, resumed %d times", *r, resumed)
	}
	if !strings.Contains(q.capabilities, `{"capability":"postcopy-ram","state":true}`) ||
		!strings.Contains(q.capabilities, `{"capability":"pause-before-switchover","state":false}`) {
		t.Errorf("capabilities %s", q.capabilities)
	}
}

// TestMigrateWarmsTheCache: the goal holds from the pass on in which the cache is warm.
func TestMigrateWarmsTheCache(t *testing.T) {
	setting, err := Choose("qemu-xbzrle-warm", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	q := &migration{
		statuses:    []string{pass(1, 0), status("active"), pass(2, 1), pass(3, 2), pass(4, 3), pass(5, 4)},
		afterLimit:  []string{stop, status("completed")},
		transferred: []uint64{1},
	}
	r, err := Migrate(guarded(t), connect(t, q.source), connect(t, destination), MigrationOptions{
		Setting: setting, MaxDowntime: 30 * time.Millisecond, Patience: time.Hour,
	})
	if err != nil || !r.Converged || !reflect.DeepEqual(q.downtimeLimit, []float64{1, 30}) || !reflect.DeepEqual(q.bandwidth, []float64{64 << 20, 1 << 40}) {
		t.Errorf("Migrate() = %+v, %v; downtime limits %v, bandwidths %v", r, err, q.downtimeLimit, q.bandwidth)
	}
}

func TestMigrateFollowsRounds(t *testing.T) {
	q := &migration{
		statuses:    []string{pass(1, 0), status("active"), pass(2, 1500), stop, pass(3, 2500), status("completed")},
		transferred: []uint64{1000, 61_000, 71_000, 79_000},
	}
	r, err := Migrate(guarded(t), connect(t, q.source), connect(t, destination), MigrationOptions{
		MaxDowntime: time.Second, Patience: time.Hour, FollowRounds: true,
	})
	want := []Pass{
		{StartMS: 0, MS: 1.5, Bytes: 60_000, Pages: 60},
		{StartMS: 1.5, MS: 1, Bytes: 10_000, Pages: 10},
		{StartMS: 2.5, MS: 6.5, Bytes: 8000, Pages: 8, Paused: true},
	}
	if err != nil || !reflect.DeepEqual(r.Passes, want) {
		t.Errorf("passes %+v, want %+v: %v", r.Passes, want, err)
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		hot          uint64
		large, small uint64
	}{
		{16 << 20, 64 << 20, 8 << 20},
		{256 << 20, 512 << 20, 128 << 20},
		{300 << 20, 1 << 30, 256 << 20},
		{4096, 64 << 20, 1 << 20},
	} {
		for name, want := range map[string]uint64{"qemu-xbzrle": c.large, "qemu-xbzrle-small": c.small} {
			s, err := Choose(name, c.hot)
			if err != nil || s.parameters["xbzrle-cache-size"] != want {
				t.Errorf("%s for %d hot bytes: %+v, %v; want a cache of %d", name, c.hot, s, err, want)
			}
		}
	}
	if _, err := Choose("xen", 1); err == nil || !strings.Contains(err.Error(), "qemu-multifd-zstd") {
		t.Errorf("Choose: %v", err)
	}
}

func TestParseFaults(t *testing.T) {
	const trace = `qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.01H:ECX.pni [bit 0]
7@100.000010:postcopy_place_page host=0x7f030bf0c000
9@100.000020:postcopy_ram_fault_thread_request Request for HVA=0x7f4e28bd3000 rb=microvm.ram offset=0x8dd3000 pid=24689
9@100.000030:postcopy_ram_fault_thread_request Request for HVA=0x7f4e28bd4000 rb=microvm.ram offset=0x8dd4000 pid=24689
9@100.000040:postcopy_ram_fault_thread_request Request for HVA=0x7f4e28bd3000 rb=microvm.ram offset=0x8dd3000 pid=24689
7@100.000120:postcopy_place_page host=0x7f4e28bd3000
7@101.000030:postcopy_place_page_zero host=0x7f4e28bd4000
7@101.000031:postcopy_place_page host=0x7f4e28bd4000
`
	got, err := ParseFaults(strings.NewReader(trace))
	if want := []time.Duration{100 * time.Microsecond, time.Second}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ParseFaults() = %v, %v, want %v", got, err, want)
	}
	if _, err := ParseFaults(strings.NewReader("9@1.000001:postcopy_ram_fault_thread_request Request\n")); err == nil {
		t.Error("a request without an address passes")
	}
}
