package migration

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// TLSFiles are one side's PEM files for mutual TLS. The zero value means no TLS.
type TLSFiles struct {
	Cert string // this side's certificate, then those that link it to the CA
	Key  string // the private key of Cert
	CA   string // the authorities that sign the peers' certificates
}

// Check judges the names against the address that they are for.
func (f TLSFiles) Check(at Address) error {
	switch {
	case f == TLSFiles{}:
		return nil
	case f.Cert == "" || f.Key == "" || f.CA == "":
		return errors.New("TLS needs a certificate, its key and a CA: give all three, or none")
	case at.network != "tcp":
		return fmt.Errorf("TLS is for tcp: addresses, and %s never leaves this host: leave the three files out", at)
	}
	return nil
}

// Load reads and checks the files. The result is for either side: SendOptions.TLS and ListenOptions.TLS. It
// is nil when there are no files.
func (f TLSFiles) Load(log logrus.FieldLogger) (*tls.Config, error) {
	if f == (TLSFiles{}) {
		return nil, nil
	}
	pair, err := f.loadPair()
	if err != nil {
		return nil, err
	}
	authorities, err := loadCA(f.CA)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(f.Key); err == nil && info.Mode()&0o007 != 0 {
		log.Warnf("everybody on this host may read the TLS key %s: chmod 600 it", f.Key)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{pair},
		RootCAs:      authorities,
		ClientCAs:    authorities,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		// A resumed session would outlive the certificate that began it.
		SessionTicketsDisabled: true,
		// Small first records are for browsers; here they cost system calls.
		DynamicRecordSizingDisabled: true,
	}, nil
}

// loadPair reads certificate and key, and finds out which of the two is to blame.
func (f TLSFiles) loadPair() (tls.Certificate, error) {
	certs, err := os.ReadFile(f.Cert)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS certificate: %w", err)
	}
	key, err := os.ReadFile(f.Key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS key: %w", err)
	}
	parsed, err := parseCertificates(certs)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS certificate %s: %w", f.Cert, err)
	}
	if now := time.Now(); now.Before(parsed[0].NotBefore) || now.After(parsed[0].NotAfter) {
		return tls.Certificate{}, fmt.Errorf("TLS certificate %s is valid from %s to %s only: renew it, or set the clock",
			f.Cert, parsed[0].NotBefore.Format(time.RFC3339), parsed[0].NotAfter.Format(time.RFC3339))
	}
	pair, err := tls.X509KeyPair(certs, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("TLS key %s with the certificate %s: %w", f.Key, f.Cert, err)
	}
	return pair, nil
}

func loadCA(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("TLS CA: %w", err)
	}
	certs, err := parseCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("TLS CA %s: %w", path, err)
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, nil
}

// parseCertificates returns at least one certificate.
func parseCertificates(text []byte) (all []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, errors.New("there is no certificate in PEM form in it")
	}
	return all, nil
}

// Exposed reports whether what is sent to the address can leave this host.
func (a Address) Exposed() bool {
	if a.network != "tcp" {
		return false
	}
	host := a.host()
	ip := net.ParseIP(host)
	return host != "localhost" && (ip == nil || !ip.IsLoopback())
}

// host is the name that a certificate must have, of a tcp: address.
func (a Address) host() string {
	host, _, _ := net.SplitHostPort(a.address) // checked when it was parsed
	host, _, _ = strings.Cut(host, "%")        // the zone of an IPv6 address is this host's affair
	return host
}

// ClearTextWarning is said once by each process that has part in a migration off loopback without TLS.
func ClearTextWarning(a Address) string {
	return fmt.Sprintf("NO ENCRYPTION, NO AUTHENTICATION at %s: whoever can reach it, or sits on the way, can read and replace "+
		"the guest; give --tls-cert, --tls-key and --tls-ca on both sides, or use a tunnel", a)
}

// TLSError: the two sides did not come to trust each other. Nothing of the guest was touched.
type TLSError struct {
	Peer   string // whom it is about
	Advice string
	Cause  error
}

func (e *TLSError) Error() string {
	return fmt.Sprintf("TLS with %s: %v; %s", e.Peer, e.Cause, e.Advice)
}
func (e *TLSError) Unwrap() error { return e.Cause }

type dialer = func(context.Context) (net.Conn, error)

// reached lets a fault plan get at what dial returns, below TLS.
func (o *SendOptions) reached(dial dialer) dialer {
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return o.hooks.plan.Over(conn), nil
	}
}

// secured puts TLS, if it is wanted, on what dial returns.
func (o *SendOptions) secured(to Address, dial dialer) dialer {
	dial = o.reached(dial)
	if o.TLS == nil {
		var once sync.Once
		return func(ctx context.Context) (net.Conn, error) {
			if to.Exposed() {
				once.Do(func() { o.Log.Warn(ClearTextWarning(to)) })
			}
			return dial(ctx)
		}
	}
	config := o.TLS.Clone()
	config.ServerName = to.host()
	if len(config.Certificates) > 0 {
		// Also one that is not of the destination's CAs, so that its error tells that and not "no certificate".
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &config.Certificates[0], nil
		}
	}
	return func(ctx context.Context) (net.Conn, error) {
		raw, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		c := &tlsConn{Conn: tls.Client(raw, config), raw: raw, destination: "the destination at " + to.String()}
		if err := c.HandshakeContext(ctx); err != nil {
			_ = raw.Close()
			return nil, &TLSError{Peer: c.destination, Advice: adviceToSource(err), Cause: err}
		}
		return c, nil
	}
}

// secured puts TLS, if it is wanted, on an accepted connection. Its handshake is greet's.
func (l *Listener) secured(raw net.Conn) net.Conn {
	raw = l.plan.Over(raw)
	if l.opts.TLS == nil {
		return raw
	}
	return &tlsConn{Conn: tls.Server(raw, l.opts.TLS), raw: raw}
}

// tlsConn is a tls.Conn for the way in which this package uses connections. A write that a deadline cut
// leaves it unusable for writing, as it leaves a stream of frames: see pace.torn.
type tlsConn struct {
	*tls.Conn
	raw         net.Conn
	destination string // what it is called; "" at the destination itself
	heard       bool   // the first Read has succeeded; for the one goroutine that reads
}

// Close says nothing to the peer. close_notify could wait seconds for a link that stands still, with a
// guest paused meanwhile, and nobody needs it: a sequence of frames that was cut is seen to be.
func (c *tlsConn) Close() error { return c.raw.Close() }

// Read explains the alert by which a destination refuses this side's certificate. In TLS 1.3 it comes after
// the source's handshake is over (RFC 8446, 4.4.2.4 and appendix E.1.2).
func (c *tlsConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !c.heard && c.destination != "" && isAlert(err) {
		return n, &TLSError{Peer: c.destination, Advice: adviceToSource(err), Cause: err}
	}
	c.heard = c.heard || n > 0
	return n, err
}

func isAlert(err error) bool {
	var remote *net.OpError
	return errors.As(err, &remote) && remote.Op == "remote error" // as crypto/tls names what the peer said
}

// speaksPlain reports whether the peer's first bytes are a frame.
func speaksPlain(err error) bool {
	var header tls.RecordHeaderError
	return errors.As(err, &header) && binary.LittleEndian.Uint32(header.RecordHeader[:]) == wire.Magic
}

// adviceToSource is the way out of a handshake that failed at the source.
func adviceToSource(err error) string {
	var name x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case speaksPlain(err):
		return "the destination does not use TLS: start it with --tls-cert, --tls-key and --tls-ca"
	case errors.As(err, &name):
		return "give --to a name or an address that is in the destination's certificate (subject alternative names)"
	case errors.As(err, &unknown):
		return "give the CA that signed the destination's certificate as --tls-ca"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the destination's certificate, or set this host's clock"
	case errors.As(err, &invalid):
		return "give the destination a certificate for servers (extended key usage serverAuth) from --tls-ca's CA"
	case isAlert(err):
		return "the destination does not accept this side's certificate: it must be in date, " +
			"for clients (extended key usage clientAuth), and signed by the destination's --tls-ca"
	}
	return "is the destination there, and started with --tls-cert, --tls-key and --tls-ca?"
}

// handshake makes a visitor of a TLS address prove who it is. One that speaks plain text is told why it is
// not heard.
func (v *visitor) handshake(ctx context.Context) error {
	c, ok := v.conn.(*tlsConn)
	if !ok {
		return nil
	}
	err := c.HandshakeContext(ctx)
	if err == nil {
		return nil
	}
	failed := &TLSError{
		Peer: "the source at " + c.raw.RemoteAddr().String(), Cause: err,
		Advice: "it needs a certificate that is in date, for clients, and signed by the CA that was given here as --tls-ca",
	}
	switch {
	case isAlert(err):
		failed.Advice = "the source does not accept this side's certificate: it must be in date, for servers (extended key usage serverAuth), " +
			"for the name or address that the source gives as --to, and signed by the source's --tls-ca"
	case speaksPlain(err):
		failed.Advice = "it does not use TLS: migrate with --tls-cert, --tls-key and --tls-ca"
		_ = c.raw.SetWriteDeadline(time.Now().Add(v.timeout))
		_ = wire.NewWriter(c.raw).Message(wire.TypeRefuse, wire.NewReason(
			"this address takes TLS only: give --tls-cert, --tls-key and --tls-ca", false))
	}
	return failed
}

// unexpectedTLS explains a first frame that is a TLS handshake, or returns err as it is.
func (v *visitor) unexpectedTLS(err error) error {
	const recordHandshake = 22 // RFC 8446, 5.1
	var magic *wire.MagicError
	if !errors.As(err, &magic) || magic.Got[0] != recordHandshake {
		return err
	}
	// Not for a TLS peer to parse: its library reports these bytes, and adviceToSource knows them.
	_ = v.send(wire.TypeRefuse, wire.NewReason("this address does not use TLS", false))
	return &TLSError{
		Peer: "the source at " + v.conn.RemoteAddr().String(), Cause: err,
		Advice: "it uses TLS and this process does not: start it with --tls-cert, --tls-key and --tls-ca",
	}
}

// refusesTrust returns the error in err's chain that says so, or nil.
func refusesTrust(err error) error {
	var untrusted *TLSError
	if errors.As(err, &untrusted) {
		return untrusted
	}
	return nil
}
