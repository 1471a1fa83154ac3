package tlsfiles_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/tlsfiles"
)

// pair writes a certificate that vouches for itself, and its key.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	return pairFor(t, time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
}

func certificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pairFor(t *testing.T, from, to time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to, IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"localhost"}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	err = errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// shake lets the two ends shake hands over a real connection and returns what each says.
func shake(t *testing.T, client, server *tls.Config) error {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			err = errors.Join(conn.(*tls.Conn).Handshake(), conn.Close())
		}
		served <- err
	}()
	client = client.Clone()
	client.ServerName = "localhost"
	conn, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		defer conn.Close()
	}
	return errors.Join(err, <-served)
}

func TestBothEndsVouchForEachOther(t *testing.T) {
	cert, key := pair(t)
	server, err := tlsfiles.Server(nil, cert, key, cert)
	if err != nil {
		t.Fatal(err)
	}
	known, err := tlsfiles.Client(nil, true, cert, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := shake(t, known, server); err != nil {
		t.Errorf("known client: %v", err)
	}
	unknown, err := tlsfiles.Client(nil, true, cert, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := shake(t, unknown, server); err == nil {
		t.Error("a client without a certificate was let in")
	}
	other, _ := pair(t)
	wrong, err := tlsfiles.Client(nil, true, other, cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := shake(t, wrong, server); err == nil {
		t.Error("a server that nobody vouches for was believed")
	}
}

func TestNothingGivenMeansNoTLS(t *testing.T) {
	client, err := tlsfiles.Client(nil, false, "", "", "")
	if client != nil || err != nil {
		t.Errorf("client %v, %v", client, err)
	}
	server, err := tlsfiles.Server(nil, "", "", "")
	if server != nil || err != nil {
		t.Errorf("server %v, %v", server, err)
	}
}

func TestFilesThatMakeNoSenseAreErrors(t *testing.T) {
	cert, key := pair(t)
	for name, of := range map[string]func() (*tls.Config, error){
		"files but TLS is off":       func() (*tls.Config, error) { return tlsfiles.Client(nil, false, cert, "", "") },
		"no such authority":          func() (*tls.Config, error) { return tlsfiles.Client(nil, true, "missing.pem", "", "") },
		"authority is a key":         func() (*tls.Config, error) { return tlsfiles.Client(nil, true, key, "", "") },
		"certificate without key":    func() (*tls.Config, error) { return tlsfiles.Client(nil, true, "", cert, "") },
		"server without key":         func() (*tls.Config, error) { return tlsfiles.Server(nil, cert, "", "") },
		"server's authority missing": func() (*tls.Config, error) { return tlsfiles.Server(nil, cert, key, "missing.pem") },
		"authority, no certificate":  func() (*tls.Config, error) { return tlsfiles.Server(nil, "", "", cert) },
	} {
		if conf, err := of(); err == nil || conf != nil {
			t.Errorf("%s: %v, %v", name, conf, err)
		}
	}
}
