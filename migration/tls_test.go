package migration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logrustest "github.com/sirupsen/logrus/hooks/test"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/tlstest"
)

// pki is a folder of authorities and certificates.
type pki struct {
	t       testing.TB
	ca, ca2 *tlstest.Authority
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	dir := t.TempDir()
	ca, err := tlstest.NewAuthority(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	other, err := tlstest.NewAuthority(dir, "ca2")
	if err != nil {
		t.Fatal(err)
	}
	return &pki{t: t, ca: ca, ca2: other}
}

// files issues a certificate of by, for who trusts trusted.
func (p *pki) files(name string, by, trusted *tlstest.Authority, template tlstest.Template) TLSFiles {
	p.t.Helper()
	leaf, err := by.Issue(name, template)
	if err != nil {
		p.t.Fatal(err)
	}
	return TLSFiles{Cert: leaf.Cert, Key: leaf.Key, CA: trusted.File}
}

func load(t testing.TB, f TLSFiles) *tls.Config {
	t.Helper()
	log, _ := logrustest.NewNullLogger()
	c, err := f.Load(log)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// good is a configuration that both sides can have.
func (p *pki) good() *tls.Config {
	return load(p.t, p.files("good", p.ca, p.ca, tlstest.Template{}))
}

// expired is a certificate that Load would not give.
func (p *pki) expired() *tls.Config {
	f := p.files("expired", p.ca, p.ca, tlstest.Template{Expired: true})
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		p.t.Fatal(err)
	}
	c := p.good().Clone()
	c.Certificates = []tls.Certificate{pair}
	return c
}

// newTLSPair is a pair on a tcp: address of loopback, with the configuration of each side.
func newTLSPair(t *testing.T, source, destination *tls.Config) *pair {
	t.Helper()
	p := newPair(t)
	p.opts.TLS, p.listenTLS = source, destination
	p.listen("tcp:127.0.0.1:0")
	return p
}

func TestTLSMigrates(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "[::1]", "localhost"} {
		t.Run(host, func(t *testing.T) {
			config := newPKI(t).good()
			p := newPair(t)
			p.opts.TLS, p.listenTLS = config, config
			p.listen("tcp:" + host + ":0")
			out := p.migrate()
			if out.sendErr != nil || out.gotErr != nil {
				t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
			}
			p.verifyLaw(destination)
		})
	}
}

// TestTLSIsOnTheWire: what a relay sees has neither the frames' magic nor the guest's bytes, and a bit that it
// turns ends the connection and not the guest.
func TestTLSIsOnTheWire(t *testing.T) {
	config := newPKI(t).good()
	p := newTLSPair(t, config, config)
	clear := 0
	p.wrap = func(_ string, c net.Conn) net.Conn {
		return &watchedConn{Conn: c, see: func(b []byte) {
			clear += strings.Count(string(b), "FLMG") + strings.Count(string(b), `"machine_id"`)
		}}
	}
	if out := p.migrate(); out.sendErr != nil {
		t.Fatal(out.sendErr)
	}
	p.verifyLaw(destination)
	if clear != 0 {
		t.Errorf("%d pieces of plain text", clear)
	}
}

type watchedConn struct {
	net.Conn
	see func([]byte)
}

func (c *watchedConn) Write(p []byte) (int, error) {
	c.see(p)
	return c.Conn.Write(p)
}

// TestTLSTampering turns a bit of the n-th write of either side: the law holds wherever it hits.
func TestTLSTampering(t *testing.T) {
	config := newPKI(t).good()
	untilSuccess(t, func(p *pair, f *faults) {
		p.opts.TLS, p.listenTLS = config, config
		p.listen("tcp:127.0.0.1:0")
		p.wrap = func(_ string, c net.Conn) net.Conn { return &tamperedConn{c, f} }
		p.verifyAgreement(p.migrate())
	})
}

type tamperedConn struct {
	net.Conn
	f *faults
}

func (c *tamperedConn) Write(p []byte) (int, error) {
	if c.f.next() {
		p = append([]byte(nil), p...)
		p[len(p)-1] ^= 1
	}
	return c.Conn.Write(p)
}

// TestTLSRefusals: who is not trusted gets nothing of the guest, says so with the way out, and the
// destination waits on.
func TestTLSRefusals(t *testing.T) {
	c := newPKI(t)
	good := c.good()
	noCertificate := good.Clone()
	noCertificate.Certificates = nil
	of := func(name string, by, trusted *tlstest.Authority, template tlstest.Template) *tls.Config {
		return load(t, c.files(name, by, trusted, template))
	}
	serverOnly := tlstest.Template{Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	clientOnly := tlstest.Template{Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	elsewhere := tlstest.Template{Hosts: []string{"elsewhere.example", "192.0.2.1"}}
	old := good.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, tc := range []struct {
		name                string
		source, destination *tls.Config
		want                []string // in the source's error
	}{
		{"source without a certificate", noCertificate, good, []string{"does not accept this side's certificate"}},
		{"source of another CA", of("alien", c.ca2, c.ca, tlstest.Template{}), good, []string{"signed by the destination's --tls-ca"}},
		{"source expired", c.expired(), good, []string{"expired", "in date"}},
		{"source's certificate is for servers", of("server", c.ca, c.ca, serverOnly), good, []string{"clientAuth"}},
		{"source speaks TLS 1.2", old, good, []string{"protocol version"}},
		{"source in plain text", nil, good, []string{"refused", "takes TLS only", "--tls-cert"}},
		{"destination without a certificate", good, noCertificate, []string{"TLS with the destination"}},
		{"destination of another CA", good, of("alien", c.ca2, c.ca, tlstest.Template{}), []string{"unknown authority", "--tls-ca"}},
		{"destination expired", good, c.expired(), []string{"expired", "renew the destination's certificate"}},
		{"destination has another name", good, of("elsewhere", c.ca, c.ca, elsewhere), []string{"192.0.2.1", "give --to a name"}},
		{"destination's certificate is for clients", good, of("client", c.ca, c.ca, clientOnly), []string{"serverAuth"}},
		{"destination in plain text", good, nil, []string{"does not use TLS: start it with --tls-cert"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newTLSPair(t, tc.source, tc.destination)
			p.opts.PeerTimeout = hangGuard
			ctx, cancel := context.WithCancel(t.Context())
			received := p.receiveInBackground(ctx)
			p.opts.hooks = p.src.hooks
			p.opts.hooks.dial = p.dial
			_, err := Send(p.ctx, p.src, p.l.Address(), p.opts)
			if err == nil {
				t.Fatal("migrated")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if p.src.pauses != 0 || p.dst.built {
				t.Errorf("the guest was paused %d times; built at the destination: %v", p.src.pauses, p.dst.built)
			}
			select {
			case err := <-received:
				t.Errorf("the destination waits no more: %v", err)
			default:
			}
			cancel()
			<-received
			p.verifyLaw(source)
		})
	}
}

// TestTLSBlame: the destination's log sends its reader to the side whose certificate was not accepted.
func TestTLSBlame(t *testing.T) {
	c := newPKI(t)
	good := c.good()
	alien := load(t, c.files("alien", c.ca2, c.ca, tlstest.Template{}))
	for _, tc := range []struct {
		name                string
		source, destination *tls.Config
		want                string
	}{
		{"of the destination's CA", good, alien, "the source does not accept this side's certificate"},
		{"of the destination's date", good, c.expired(), "the source does not accept this side's certificate"},
		{"of the source's CA", alien, good, "it needs a certificate that is in date"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			log, said := logrus.New(), make(lines, 16)
			log.SetOutput(said)
			p.log = log
			p.opts.TLS, p.listenTLS = tc.source, tc.destination
			p.listen("tcp:127.0.0.1:0")
			p.opts.hooks = p.src.hooks
			p.opts.hooks.dial = p.dial
			if _, err := Send(p.ctx, p.src, p.l.Address(), p.opts); err == nil {
				t.Fatal("migrated")
			}
			if got := <-said; !strings.Contains(got, tc.want) {
				t.Errorf("%q does not say %q", got, tc.want)
			}
			p.verifyLaw(source)
		})
	}
}

// lines yields what is written to it.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

const hangGuard = time.Minute

// TestTLSLawAtEveryPoint is TestLawAtEveryPoint over TLS.
func TestTLSLawAtEveryPoint(t *testing.T) {
	config := newPKI(t).good()
	cases := slices.DeleteFunc(lawCases(), func(c lawCase) bool { return c.passing > 1 })
	eachLawCase(t, cases, func(t *testing.T, c lawCase) {
		p := newPair(t)
		p.opts.TLS, p.listenTLS = config, config
		p.verifyCase(c, "tcp:127.0.0.1:0")
	})
}

// TestTLSFailEveryOperation is TestFailEveryOperation below TLS, its handshake included.
func TestTLSFailEveryOperation(t *testing.T) {
	config := newPKI(t).good()
	for _, half := range []bool{false, true} {
		t.Run(fmt.Sprintf("half=%v", half), func(t *testing.T) {
			t.Parallel()
			untilSuccess(t, func(p *pair, f *faults) {
				f.half = half
				p.opts.TLS, p.listenTLS = config, config
				p.listen("tcp:127.0.0.1:0")
				p.wrap = func(_ string, c net.Conn) net.Conn { return &faultyConn{c, f} }
				p.verifyAgreement(p.migrate())
			})
		})
	}
}

// TestTLSStall: a link on which nothing moves any more does not keep a paused guest from going on. Nothing is
// written after a deadline has cut a write, as a tls.Conn's own Close would, for five seconds.
func TestTLSStall(t *testing.T) {
	config := newPKI(t).good()
	p := newTLSPair(t, config, config)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.ctx = ctx
	p.opts.Rule.MaxDowntime = hangGuard // one round: through such buffers it takes long enough
	stalled, late := make(chan struct{}), atomic.Bool{}
	p.src.onPause = func() error {
		close(stalled)
		// Half a megabyte for the last round, more than the buffers below hold.
		noise, content := rand.NewChaCha8([32]byte{}), make([]byte, memory.PageSize)
		for page := range memory.GPA(testPages / 2) {
			_, _ = noise.Read(content)
			if err := p.src.mem.WriteAt(page*memory.PageSize, content); err != nil {
				return err
			}
		}
		return nil
	}
	p.wrap = func(side string, c net.Conn) net.Conn {
		raw := c.(*net.TCPConn)
		_, _ = raw.SetWriteBuffer(32<<10), raw.SetReadBuffer(32<<10)
		if side == source {
			return &cutConn{Conn: c, late: &late, stalled: stalled, midway: cancel}
		}
		return &stallingConn{Conn: c, stalled: stalled, end: make(chan struct{})}
	}
	out := p.migrate()
	if !errors.Is(out.sendErr, context.Canceled) {
		t.Errorf("send: %v", out.sendErr)
	}
	if p.src.pauses != 1 || late.Load() {
		t.Errorf("paused %d times; written after a write was cut: %v", p.src.pauses, late.Load())
	}
	p.verifyLaw(source)
}

// cutConn says whether something was written after a write that failed, and when the last round is under way.
type cutConn struct {
	net.Conn
	cut     atomic.Bool
	late    *atomic.Bool
	stalled chan struct{}
	sent    int // since then
	midway  func()
}

func (c *cutConn) Write(p []byte) (int, error) {
	if c.cut.Load() {
		c.late.Store(true)
	}
	select {
	case <-c.stalled:
		if c.sent += len(p); c.sent > 1<<16 {
			c.midway()
		}
	default:
	}
	n, err := c.Conn.Write(p)
	c.cut.Store(c.cut.Load() || err != nil)
	return n, err
}

// stallingConn takes nothing any more once stalled is closed.
type stallingConn struct {
	net.Conn
	stalled chan struct{}
	once    sync.Once
	end     chan struct{}
}

func (c *stallingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p) // one that waits is woken by the first byte after the stall
	select {
	case <-c.stalled:
		<-c.end
		return 0, os.ErrDeadlineExceeded
	default:
		return n, err
	}
}

func (c *stallingConn) SetReadDeadline(t time.Time) error {
	if !t.IsZero() {
		c.once.Do(func() { close(c.end) })
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *stallingConn) Close() error {
	c.once.Do(func() { close(c.end) })
	return c.Conn.Close()
}

func TestTLSFiles(t *testing.T) {
	c := newPKI(t)
	good := c.files("good", c.ca, c.ca, tlstest.Template{})
	other := c.files("other", c.ca, c.ca, tlstest.Template{})
	bad := func(text string) string {
		path := filepath.Join(t.TempDir(), "bad.pem")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	noise, damaged := bad("noise"), bad("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	for _, tc := range []struct {
		name  string
		files TLSFiles
		want  []string
	}{
		{"no certificate", TLSFiles{"/nowhere.pem", good.Key, good.CA}, []string{"certificate", "/nowhere.pem"}},
		{"no key", TLSFiles{good.Cert, "/nowhere.key", good.CA}, []string{"key", "/nowhere.key"}},
		{"no CA", TLSFiles{good.Cert, good.Key, "/nowhere.ca"}, []string{"CA", "/nowhere.ca"}},
		{"noise for a certificate", TLSFiles{noise, good.Key, good.CA}, []string{"certificate " + noise}},
		{"noise for a key", TLSFiles{good.Cert, noise, good.CA}, []string{"key " + noise}},
		{"noise for a CA", TLSFiles{good.Cert, good.Key, noise}, []string{"CA " + noise}},
		{"damaged certificate", TLSFiles{damaged, good.Key, good.CA}, []string{"certificate " + damaged}},
		{"damaged CA", TLSFiles{good.Cert, good.Key, damaged}, []string{"CA " + damaged}},
		{"another's key", TLSFiles{good.Cert, other.Key, good.CA}, []string{other.Key, good.Cert}},
		{"key for certificate", TLSFiles{good.Key, good.Key, good.CA}, []string{"certificate " + good.Key}},
		{"expired", c.files("expired", c.ca, c.ca, tlstest.Template{Expired: true}), []string{"expired.pem", "renew"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log, _ := logrustest.NewNullLogger()
			_, err := tc.files.Load(log)
			if err == nil {
				t.Fatal("loaded")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not name %q", err, want)
				}
			}
		})
	}
}

func TestTLSKeyForAll(t *testing.T) {
	c := newPKI(t)
	files := c.files("good", c.ca, c.ca, tlstest.Template{})
	for mode, warnings := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 1} {
		if err := os.Chmod(files.Key, mode); err != nil {
			t.Fatal(err)
		}
		log, lines := logrustest.NewNullLogger()
		if _, err := files.Load(log); err != nil {
			t.Fatal(err)
		}
		if n := len(lines.AllEntries()); n != warnings {
			t.Errorf("mode %v: %d warnings, want %d", mode, n, warnings)
		}
	}
}

func TestTLSFilesCheck(t *testing.T) {
	all := TLSFiles{"a", "b", "c"}
	for _, tc := range []struct {
		files   TLSFiles
		address string
		ok      bool
	}{
		{TLSFiles{}, "tcp:h:1", true},
		{TLSFiles{}, "unix:/s", true},
		{all, "tcp:h:1", true},
		{all, "unix:/s", false},
		{TLSFiles{Cert: "a", Key: "b"}, "tcp:h:1", false},
		{TLSFiles{CA: "c"}, "tcp:h:1", false},
	} {
		at, err := ParseAddress(tc.address)
		if err != nil {
			t.Fatal(err)
		}
		if err := tc.files.Check(at); (err == nil) != tc.ok {
			t.Errorf("%+v at %s: %v", tc.files, at, err)
		}
	}
}

// TestClearTextWarning: off loopback, each side says once that nobody is authenticated.
func TestClearTextWarning(t *testing.T) {
	for address, exposed := range map[string]bool{
		"unix:/s": false, "tcp:127.0.0.1:1": false, "tcp:127.8.8.8:1": false, "tcp:[::1]:1": false, "tcp:localhost:1": false,
		"tcp:0.0.0.0:1": true, "tcp:[::]:1": true, "tcp:192.0.2.1:1": true, "tcp:host:1": true, "tcp:[fe80::1%lo]:1": true,
	} {
		at, err := ParseAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		if at.Exposed() != exposed {
			t.Errorf("%s: exposed %v", address, at.Exposed())
		}
	}
	p := newPair(t)
	log, lines := logrustest.NewNullLogger()
	l, err := Listen(t.Context(), Address{network: "tcp", address: "0.0.0.0:0"}, ListenOptions{Journal: p.dst.journal, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	opts := SendOptions{MachineID: "guest", Journal: p.src.journal, Log: log}
	opts.hooks.dial = func(context.Context) (net.Conn, error) { return nil, errNet }
	if err := opts.complete(Address{network: "tcp", address: "192.0.2.1:1"}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, _ = opts.hooks.dial(t.Context())
	}
	said := 0
	for _, line := range lines.AllEntries() {
		if strings.Contains(line.Message, "NO ENCRYPTION") {
			said++
		}
	}
	if said != 2 {
		t.Errorf("said %d times by two sides", said)
	}
}
