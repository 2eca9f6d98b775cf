package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/devices/socket"
)

// call sends one request through the handler and checks the form of every answer: 204 is empty,
// 200 is JSON, all else is 400 with a fault_message.
func call(t testing.TB, h http.Handler, method, path, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, "http://x/", strings.NewReader(body))
	r.URL.Path = path
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	checkForm(t, w)
	return w.Code, strings.TrimSpace(w.Body.String())
}

func checkForm(t testing.TB, w *httptest.ResponseRecorder) {
	t.Helper()
	body := w.Body.Bytes()
	switch w.Code {
	case http.StatusNoContent:
		if len(body) != 0 {
			t.Fatalf("204 with a body: %s", body)
		}
	case http.StatusOK:
		if d := json.NewDecoder(w.Body); !json.Valid(body) && d.Decode(&MigrationEvent{}) != nil {
			t.Fatalf("200 without JSON: %s", body)
		}
	case http.StatusBadRequest:
		var f faultBody
		if err := json.Unmarshal(body, &f); err != nil || f.FaultMessage == "" {
			t.Fatalf("400 without a fault_message: %s", body)
		}
	default:
		t.Fatalf("status %d: %s", w.Code, body)
	}
}

// TestCallsOfTheGoSDK replays, in order, what Firecracker's Go client sends.
func TestCallsOfTheGoSDK(t *testing.T) {
	f, s := newFake(t, false)
	h := NewServer(s, quietConfig()).Handler()
	for _, c := range []struct {
		method, path, body string
		status             int
		reply              string
	}{
		{"GET", "/machine-config", "", 200, `{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false}`},
		{"PUT", "/logger", `{"level":"Debug","log_path":"/tmp/fc.log","show_level":true,"show_log_origin":false}`, 204, ""},
		{"PUT", "/metrics", `{"metrics_path":"/tmp/fc.metrics"}`, 400, `does not serve \"/metrics\"`},
		{"PUT", "/machine-config", `{"mem_size_mib":256,"smt":false,"track_dirty_pages":true,"vcpu_count":2}`, 204, ""},
		{"GET", "/machine-config", "", 200, `{"vcpu_count":2,"mem_size_mib":256,"smt":false,"track_dirty_pages":true}`},
		{"PUT", "/boot-source", `{"boot_args":"console=ttyS0 reboot=k","kernel_image_path":"/k/vmlinux","initrd_path":"/k/initrd"}`, 204, ""},
		{"PUT", "/drives/root_drive", `{"drive_id":"root_drive","is_root_device":true,"is_read_only":false,"path_on_host":"/r"}`, 400, "does not serve"},
		{"PUT", "/actions", `{"action_type":"InstanceStart"}`, 204, ""},
		{"GET", "/", "", 200, `{"id":"vm-1","state":"Running","vmm_version":"1.2.3","app_name":"Fineline","phase":"running"}`},
		{"PATCH", "/vm", `{"state":"Paused"}`, 204, ""},
		{"GET", "/", "", 200, `"state":"Paused"`},
		{"PUT", "/snapshot/create", `{"mem_file_path":"/m","snapshot_path":"/s"}`, 400, "does not serve"},
		{"PATCH", "/vm", `{"state":"Resumed"}`, 204, ""},
		{"GET", "/version", "", 200, `{"firecracker_version":"1.2.3"}`},
		{"GET", "/vm/config", "", 200, `{"machine-config":{"vcpu_count":2,"mem_size_mib":256,"smt":false,"track_dirty_pages":true},` +
			`"boot-source":{"kernel_image_path":"/k/vmlinux","initrd_path":"/k/initrd","boot_args":"console=ttyS0 reboot=k"}}`},
		{"PUT", "/actions", `{"action_type":"SendCtrlAltDel"}`, 400, "SendCtrlAltDel is not supported"},
		{"PUT", "/actions", `{"action_type":"FlushMetrics"}`, 400, "FlushMetrics is not supported"},
		{"GET", "/fineline/v1/metrics", "", 200, `{"faults":7}`},
	} {
		status, reply := call(t, h, c.method, c.path, c.body)
		if status != c.status || !strings.Contains(reply, c.reply) {
			t.Fatalf("%s %s: %d %s; want %d %s", c.method, c.path, status, reply, c.status, c.reply)
		}
	}
	if got := strings.Join(f.calls, " "); got != "logger config boot start pause resume" {
		t.Errorf("the controller saw %s", got)
	}
	if f.logger.LogPath != "/tmp/fc.log" || f.logger.Level != "Debug" {
		t.Errorf("logger %+v", f.logger)
	}
}

func TestRefusedRequests(t *testing.T) {
	large := `{"kernel_image_path":"` + strings.Repeat("k", maxBodyBytes) + `"}`
	longPath := `{"kernel_image_path":"` + strings.Repeat("k", maxPathBytes+1) + `"}`
	for _, c := range []struct{ method, path, body, want string }{
		{"GET", "/nothing", "", "does not serve"},
		{"GET", "/vm/../version", "", "does not serve"},
		{"GET", "//", "", "does not serve"},
		{"POST", "/vm", "{}", `does not serve \"POST\" on /vm`},
		{"HEAD", "/", "", "does not serve"},
		{"GET", "/version", "{}", "takes no body"},
		{"GET", "/boot-source", "", "no boot source is set"},
		{"GET", pathMigrationEvents, "", "no migration has been started"},
		{"PUT", "/boot-source", "", "the body is empty"},
		{"PUT", "/boot-source", " \n ", "the body is empty"},
		{"PUT", "/boot-source", large, "more than 65536 bytes"},
		{"PUT", "/boot-source", longPath, "the limit is 4095"},
		{"PUT", "/boot-source", `{"kernel_image_path":"a\u0000b"}`, "NUL"},
		{"PUT", "/boot-source", `{"kernel_image_path":"k","boot_args":"a\u0000b"}`, "NUL"},
		{"PUT", "/boot-source", `{}`, "kernel_image_path is missing"},
		{"PUT", "/boot-source", "{\"kernel_image_path\":\"\xff\"}", "UTF-8"},
		{"PUT", "/machine-config", `null`, "must be an object"},
		{"PUT", "/machine-config", `[]`, "must be an object"},
		{"PUT", "/machine-config", `{"vcpu_count":1`, "EOF"},
		{"PUT", "/machine-config", `{"vcpu_count":1,}`, "the body is not the JSON expected"},
		{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":128}{}`, "something follows"},
		{"PUT", "/machine-config", `{"vcpu_count":1,"vcpu_count":2,"mem_size_mib":128}`, "given twice"},
		{"PUT", "/machine-config", `{"VCPU_COUNT":1,"mem_size_mib":128}`, "unknown field"},
		{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":128,"sockets":2}`, "unknown field"},
		{"PUT", "/machine-config", `{"vcpu_count":{},"mem_size_mib":128}`, "no field takes an object"},
		{"PUT", "/machine-config", `{"vcpu_count":1.5,"mem_size_mib":128}`, "vcpu_count"},
		{"PUT", "/machine-config", `{"vcpu_count":0,"mem_size_mib":128}`, "vcpu_count is 0: choose 1 to 254"},
		{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":0}`, "mem_size_mib is 0"},
		{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":99999999999}`, "choose 1 to 16777216"},
		{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":128,"smt":true}`, "smt is not supported"},
		{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":128,"cpu_template":"T2"}`, "None, baseline"},
		{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":128,"huge_pages":"1G"}`, "None, 2M"},
		{"PATCH", "/machine-config", `{}`, "the patch is empty"},
		{"PATCH", "/machine-config", `{"vcpu_count":-1}`, "vcpu_count is -1"},
		{"PUT", "/logger", `{"level":"Loud"}`, "level is"},
		{"PUT", "/actions", `{"action_type":"Explode"}`, "choose InstanceStart"},
		{"PATCH", "/vm", `{"state":"Asleep"}`, "choose Paused or Resumed"},
		{"PATCH", "/vm", `{"state":"Paused"}`, "has not been started"},
		{"PUT", pathStop, `{"force":true}`, "unknown field"},
		{"PUT", pathMigration, `{}`, "destination_url is missing"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","downtime_ms":-1}`, "downtime_ms is -1"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","connections":1000}`, "connections is 1000"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","memory_mode":"precopy"}`, "Precopy, Postcopy, Hybrid"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","timeout_strategy":"Panic"}`, "Cancel, Ignore"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","granularity":"bit"}`, "page, line"},
		{"PUT", pathMigration, `{"destination_url":"tcp:h:1","tls_cert":"/c"}`, "all three, or none"},
		{"PUT", pathMigration, `{"destination_url":"tcp:h:1","tls_cert":"/c","tls_key":"k","tls_ca":"/a"}`, "tls_key is \\\"k\\\": give an absolute path"},
		{"PUT", pathMigration, `{"destination_url":"tcp:h:1","tls_cert":"/c","tls_key":"/k","tls_ca":"/a\u0000"}`, "tls_ca has a NUL byte"},
		{"PUT", pathMigration, `{"destination_url":"tcp:h:1","local":true}`, "give a unix: address"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","local":true,"memory_mode":"Hybrid"}`, "leave memory_mode out"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","checkpoint_ms":10}`, "checkpoint_ms is for keep_source"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","local":true,"granularity":"page"}`, "local copies no memory: leave granularity out"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","local":true,"baseline":"twin"}`, "local copies no memory: leave baseline out"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","local":true,"baseline_budget_bytes":1}`, "local copies no memory: leave baseline_budget_bytes out"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","local":true,"compression":"none"}`, "local copies no memory: leave compression out"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","local":true,"connections":2}`, "local copies no memory: leave connections out"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","local":true,"max_bandwidth_bytes_per_second":1}`, "local copies no memory: leave max_bandwidth_bytes_per_second out"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","local":true,"keep_source":true}`, "local copies no memory: leave keep_source out"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d","connections":128}`, "connections is 128: choose 0 (the default) to 127"},
		{"PUT", pathMigration, `{"destination_url":"unix:/d"}`, "has not been started"},
		{"PUT", pathMigrationCancel, ``, "no migration is in progress"},
		{"PUT", pathMigrationResolve, `{"decision":"keep"}`, "no migration is in doubt"},
	} {
		f, s := newFake(t, false)
		status, reply := call(t, NewServer(s, quietConfig()).Handler(), c.method, c.path, c.body)
		if status != http.StatusBadRequest || !strings.Contains(reply, c.want) {
			t.Errorf("%s %s %.80s: %d %s; want 400 with %q", c.method, c.path, c.body, status, reply, c.want)
		}
		if len(f.calls) != 0 {
			t.Errorf("%s %s %.80s reached the controller: %v", c.method, c.path, c.body, f.calls)
		}
	}
}

func TestPatchKeepsTheRest(t *testing.T) {
	f, s := newFake(t, false)
	h := NewServer(s, quietConfig()).Handler()
	if status, reply := call(t, h, "PATCH", "/machine-config", `{"mem_size_mib":512,"huge_pages":"2M"}`); status != 204 {
		t.Fatal(reply)
	}
	if want := (MachineConfig{VCPUCount: 1, MemSizeMiB: 512, HugePages: "2M"}); f.config != want {
		t.Errorf("got %+v, want %+v", f.config, want)
	}
}

func TestClientDrivesTheServer(t *testing.T) {
	f, s := newFake(t, false)
	c, _ := serve(t, s)
	ctx := t.Context()
	config := MachineConfig{VCPUCount: 4, MemSizeMiB: 1024, CPUTemplate: "baseline"}
	boot := BootSource{KernelImagePath: "builtin:dirty", BootArgs: "pages=1"}
	if _, err := c.Metrics(ctx); err == nil || !strings.Contains(err.Error(), "no machine has been started") {
		t.Errorf("metrics before the start: %v", err)
	}
	if err := errors.Join(
		s.SetMachineConfig(ctx, config), s.SetBootSource(ctx, boot), s.Start(ctx), c.Pause(ctx), c.Resume(ctx),
	); err != nil {
		t.Fatal(err)
	}
	if got, err := c.VMConfig(ctx); err != nil || got.MachineConfig != config || *got.BootSource != boot {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := c.Metrics(ctx); err != nil || string(got) != `{"faults":7}` {
		t.Errorf("%s %v", got, err)
	}
	r := MigrationRequest{
		DestinationURL: "tcp:[::1]:7", DowntimeMS: 5, TimeoutS: 60, TimeoutStrategy: "Ignore", Connections: 2,
		MemoryMode: "Precopy", MaxBandwidthBytesPerSecond: 1 << 30, Granularity: "page",
	}
	if err := c.StartMigration(ctx, r); err != nil || f.lastRequest != r {
		t.Fatalf("%+v %v", f.lastRequest, err)
	}
	var refusal *Fault
	if err := c.Pause(ctx); !errors.As(err, &refusal) || refusal.Status != 400 ||
		refusal.Message != "cannot pause: a migration is in progress: cancel it first (fineline cancel)" {
		t.Errorf("got %v", err)
	}
	if err := c.CancelMigration(ctx); err != nil {
		t.Error(err)
	}
	if err := errors.Join(c.StartMigration(ctx, r), s.MigrationEnded(GuestInDoubt, 0), c.ResolveMigration(ctx, DecisionKeep)); err != nil {
		t.Error(err)
	}
	if got, err := c.Info(ctx); err != nil || got.Phase != "running" || got.State != StateRunning {
		t.Errorf("%+v %v", got, err)
	}
	if err := c.Stop(ctx); err != nil {
		t.Error(err)
	}
	if got := s.Lifecycle().Phase; got != Ended {
		t.Errorf("phase %s", got)
	}
}

func TestProgressStream(t *testing.T) {
	_, s := started(t)
	c, _ := serve(t, s)
	if err := c.StartMigration(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	s.MigrationProgress(map[string]int{"round": 1})
	var got []string
	for ev, err := range c.MigrationEvents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(ev.Data))
		switch len(got) {
		case 1:
			s.MigrationProgress(map[string]int{"round": 2})
		case 2:
			if err := s.MigrationEnded(GuestKept, map[string]string{"status": "cancelled"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if want := `{"round":1} {"round":2} {"status":"cancelled"}`; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for ev, err := range c.MigrationEvents(t.Context()) { // a late joiner
		if err != nil || !ev.Final || string(ev.Data) != `{"status":"cancelled"}` {
			t.Errorf("late: %+v %v", ev, err)
		}
	}
}

func TestStreamEndsWithItsReaderAndWithTheServer(t *testing.T) {
	_, s := newFake(t, true)
	c, server := serve(t, s)
	s.MigrationProgress(1)
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	var last error
	for _, err := range c.MigrationEvents(ctx) {
		hangUp()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("the reader hung up and got %v", last)
	}
	for _, err := range c.MigrationEvents(t.Context()) {
		if last = err; err == nil {
			go func() { _ = server.Shutdown(context.Background()) }() // serve's cleanup checks its result
		}
	}
	if !errors.Is(last, ErrStreamCut) {
		t.Errorf("the server shut down and the reader got %v", last)
	}
}

func TestShutdownLetsTheLastAnswerOut(t *testing.T) {
	f, s := started(t)
	c, server := serve(t, s)
	f.entered, f.hold = make(chan string), make(chan struct{})
	stopped := make(chan error, 1)
	go func() { stopped <- c.Stop(t.Context()) }()
	<-f.entered
	down := make(chan error, 1)
	go func() { down <- server.Shutdown(t.Context()) }()
	<-server.closing
	close(f.hold)
	if err := errors.Join(<-stopped, <-down); err != nil {
		t.Error(err)
	}
}

func TestClientExplainsWhyNobodyAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	c := NewClient(path)
	_, err := c.Info(t.Context())
	wantError(t, err, "no API socket at "+path+": no VMM was started with it, or it has ended")
	wantError(t, err, "start one with fineline run --api "+path)
	// The file that a killed VMM leaves.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = c.Info(t.Context())
	wantError(t, err, "nobody listens on "+path)
	wantError(t, err, "start another with fineline run --api "+path)
	_, err = NewClient(strings.Repeat("x", 200)).Info(t.Context())
	wantError(t, err, "the kernel takes 107")
}

// TestClientAgainstAStrangeServer feeds the client what no Server of ours sends.
func TestClientAgainstAStrangeServer(t *testing.T) {
	for _, c := range []struct{ name, reply, want string }{
		{"not HTTP", "hello\r\n\r\n", "ask the VMM at"},
		{"fault without a message", "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", "answered 404"},
		{"not JSON", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET /"},
		{"cut", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "GET /"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "api.sock")
			l, err := socket.Listen(path)
			if err != nil {
				t.Fatal(err)
			}
			answered := make(chan error, 1)
			go func() { answered <- answerOnce(l, c.reply) }()
			_, err = NewClient(path).Info(t.Context())
			wantError(t, err, c.want)
			if err := errors.Join(<-answered, l.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

func answerOnce(l net.Listener, reply string) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 4096)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, reply); err != nil {
		return err
	}
	return conn.Close()
}
