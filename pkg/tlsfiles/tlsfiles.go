// Package tlsfiles makes TLS configurations from the files that flags name.
package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Client is for a connection that this program opens; nil when on is false. ca vouches for the other end (empty: the
// system's certificates), cert and key are shown to it (empty: none).
func Client(on bool, ca, cert, key string) (*tls.Config, error) {
	if !on {
		if ca != "" || cert != "" || key != "" {
			return nil, errors.New("certificates are given, but TLS is off")
		}
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pool, err := certPool(ca)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = pool
	}
	if cert != "" || key != "" {
		if err := show(conf, cert, key); err != nil {
			return nil, err
		}
	}
	return conf, nil
}

// Server is for connections that this program accepts; nil without a certificate. With clientCA the other end must
// show a certificate that it vouches for.
func Server(cert, key, clientCA string) (*tls.Config, error) {
	if cert == "" && key == "" {
		if clientCA != "" {
			return nil, errors.New("certificates of clients can only be asked for with a certificate of our own")
		}
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if err := show(conf, cert, key); err != nil {
		return nil, err
	}
	if clientCA != "" {
		pool, err := certPool(clientCA)
		if err != nil {
			return nil, err
		}
		conf.ClientCAs, conf.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	return conf, nil
}

func show(conf *tls.Config, cert, key string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("load certificate: %w", err)
	}
	conf.Certificates = []tls.Certificate{pair}
	return nil
}

func certPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}
