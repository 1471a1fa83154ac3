package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	// maxSet bounds a JWK Set, in bytes.
	maxSet = 1 << 20
	// fetchTime bounds one request for a JWK Set.
	fetchTime = 5 * time.Second
	// maxRedirects bounds how far such a request is sent around.
	maxRedirects = 3
)

// source is where a JWK Set comes from.
type source interface {
	// fetch gives the set. Its errors name no credentials that are part of a URL.
	fetch(ctx context.Context) ([]byte, error)
	// changed reports whether the source may hold something else than at the last fetch; ok is false for a source
	// that can only be asked.
	changed() (yes, ok bool)
	// String is the source's name in logs.
	String() string
}

func newSource(jwks string, conf *tls.Config) (source, error) {
	if !strings.Contains(jwks, "://") {
		return &file{path: jwks}, nil
	}
	u, err := url.Parse(jwks)
	if err != nil {
		return nil, fmt.Errorf("URL of the JWK Set: %w", plain(err))
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("URL of the JWK Set must begin with https:// or http:// and name a host")
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, TLSHandshakeTimeout: fetchTime,
		// Minutes pass between two requests.
		DisableKeepAlives: true,
	}
	return &endpoint{url: u, http: &http.Client{Transport: transport, Timeout: fetchTime, CheckRedirect: redirect}}, nil
}

// endpoint is a JWK Set behind a URL.
type endpoint struct {
	url  *url.URL
	http *http.Client
}

// String leaves out what may be secret: user, password and query.
func (e *endpoint) String() string {
	return (&url.URL{Scheme: e.url.Scheme, Host: e.url.Host, Path: e.url.Path}).String()
}

func (e *endpoint) changed() (yes, ok bool) { return false, false }

func (e *endpoint) fetch(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url.String(), nil)
	if err != nil {
		return nil, plain(err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := e.http.Do(req)
	if err != nil {
		return nil, plain(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer has status %d", resp.StatusCode)
	}
	return bounded(resp.Body)
}

// redirect follows a few redirects, none of them from TLS to plain text, where anybody on the way could put in keys.
func redirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("redirected from https to plain text")
	}
	return nil
}

// inTheClear reports whether the keys cross a network unprotected.
func (e *endpoint) inTheClear() bool {
	if e.url.Scheme == "https" || e.url.Hostname() == "localhost" {
		return false
	}
	ip := net.ParseIP(e.url.Hostname())
	return ip == nil || !ip.IsLoopback()
}

// plain takes the URL out of an error: it may hold credentials.
func plain(err error) error {
	outer := new(url.Error)
	if errors.As(err, &outer) {
		return outer.Err
	}
	return err
}

func bounded(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxSet+1))
	switch {
	case err != nil:
		return nil, plain(err)
	case len(text) > maxSet:
		return nil, fmt.Errorf("more than %d bytes", maxSet)
	}
	return text, nil
}

// file is a file that is read again when it was changed. It has one owner.
type file struct {
	path string
	mark mark // of the file when it was last read
}

// mark tells two states of a file apart.
type mark struct {
	size int64
	time time.Time
	err  string
}

func markOf(path string) mark {
	info, err := os.Stat(path) // through links: orchestrators replace one
	if err != nil {
		return mark{err: err.Error()}
	}
	return mark{size: info.Size(), time: info.ModTime()}
}

func (f *file) String() string { return f.path }

func (f *file) changed() (yes, ok bool) { return markOf(f.path) != f.mark, true }

func (f *file) fetch(context.Context) ([]byte, error) {
	f.mark = markOf(f.path) // first: what changes meanwhile is read again
	r, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return bounded(r)
}
