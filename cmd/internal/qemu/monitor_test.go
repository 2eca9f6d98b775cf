package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}`

// connect returns a Monitor whose commands are answered by answer, with any number of lines.
func connect(t *testing.T, answer func(command string, arguments json.RawMessage) []string) *Monitor {
	t.Helper()
	ours, theirs := net.Pipe()
	go serve(theirs, answer)
	m, err := NewMonitor(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(); theirs.Close() })
	return m
}

func serve(conn net.Conn, answer func(string, json.RawMessage) []string) {
	send := func(line string) { conn.Write([]byte(line + "\r\n")) }
	send(greeting)
	for s := bufio.NewScanner(conn); s.Scan(); {
		var c struct {
			Execute   string
			Arguments json.RawMessage
		}
		if json.Unmarshal(s.Bytes(), &c) != nil {
			conn.Close()
			return
		}
		if c.Execute == "qmp_capabilities" {
			send(`{"return": {}}`)
			continue
		}
		for _, line := range answer(c.Execute, c.Arguments) {
			send(line)
		}
	}
}

func TestExecute(t *testing.T) {
	m := connect(t, func(command string, _ json.RawMessage) []string {
		switch command {
		case "query-status":
			return []string{
				`{"timestamp": {"seconds": 7, "microseconds": 250000}, "event": "STOP"}`,
				`{"return": {"status": "paused"}}`,
			}
		case "bad":
			return []string{`{"error": {"class": "GenericError", "desc": "no such thing"}}`}
		}
		return []string{`{"return": {}}`}
	})
	var status struct{ Status string }
	if err := m.Execute(t.Context(), "query-status", nil, &status); err != nil || status.Status != "paused" {
		t.Errorf("Execute: %+v, %v", status, err)
	}
	if err := m.Execute(t.Context(), "bad", map[string]any{"a": 1}, nil); err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("an error of QEMU's: %v", err)
	}
	e, err := m.Await(t.Context()) // was met before the answer to query-status
	if err != nil || e.Name != "STOP" || !e.Time().Equal(time.Unix(7, 250_000_000)) {
		t.Errorf("Await: %+v, %v", e, err)
	}
}

func TestMonitorEnds(t *testing.T) {
	for name, line := range map[string]string{"garbage": "]", "closed": ""} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				if line != "" {
					theirs.Write([]byte(line + "\n"))
				}
				theirs.Close()
			}()
			if _, err := NewMonitor(t.Context(), ours); err == nil {
				t.Error("NewMonitor succeeds")
			}
		})
	}
	t.Run("no greeting", func(t *testing.T) {
		ours, theirs := net.Pipe()
		go theirs.Write([]byte(`{"return": {}}` + "\n"))
		if _, err := NewMonitor(t.Context(), ours); err == nil || !strings.Contains(err.Error(), "greet") {
			t.Errorf("NewMonitor: %v", err)
		}
	})
	t.Run("context", func(t *testing.T) {
		m := connect(t, func(string, json.RawMessage) []string { return nil })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.Execute(ctx, "stop", nil, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("Execute: %v", err)
		}
	})
}

// migration is a script of QEMU 7.2's messages.
type migration struct {
	statuses      []string // of the events after migrate, in order
	sawContinue   bool
	timesLate     int      // so many answers of query-migrate have no times yet
	transferred   []uint64 // successive answers of query-migrate
	downtimeLimit []float64
	afterLimit    []string // when the downtime limit is raised
}

func status(s string) string {
	return `{"timestamp": {"seconds": 100, "microseconds": 1}, "event": "MIGRATION", "data": {"status": "` + s + `"}}`
}

const stop = `{"timestamp": {"seconds": 100, "microseconds": 2000}, "event": "STOP"}`

func (q *migration) source(command string, arguments json.RawMessage) []string {
	const done = `{"return": {}}`
	switch command {
	case "migrate":
		return append([]string{done}, q.statuses...)
	case "migrate-set-parameters":
		var p map[string]float64
		if json.Unmarshal(arguments, &p) != nil {
			return nil
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
			"ram": map[string]any{"transferred": n, "dirty-sync-count": 3},
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
	r, err := Migrate(t.Context(), connect(t, q.source), connect(t, destination), MigrationOptions{
		URI: "unix:/x", MaxDowntime: 5 * time.Millisecond, Patience: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Migration{TotalMS: 150, DowntimeMS: 10.5, OwnDowntimeMS: 8, BytesSent: 1 << 20, Rounds: 3, Converged: true}
	if *r != want {
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
	r, err := Migrate(t.Context(), connect(t, q.source), connect(t, destination), MigrationOptions{
		URI: "unix:/x", MaxDowntime: time.Second, Patience: time.Hour, CountDowntime: true,
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
	r, err := Migrate(t.Context(), connect(t, q.source), connect(t, destination), MigrationOptions{
		URI: "unix:/x", MaxDowntime: time.Millisecond, Patience: time.Nanosecond,
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
	_, err := Migrate(t.Context(), connect(t, q.source), connect(t, destination), MigrationOptions{Patience: time.Hour})
	if err == nil || !strings.Contains(err.Error(), "the link broke") {
		t.Errorf("Migrate(): %v", err)
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright": "7.2.22",
		"QEMU emulator version 10.0.0\n":                                "10.0.0",
		"QEMU emulator version ":                                        "",
		"something else":                                                "",
	} {
		got, err := parseVersion(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("parseVersion(%q) = %q, %v", text, got, err)
		}
	}
}
