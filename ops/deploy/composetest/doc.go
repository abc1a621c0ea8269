// Package composetest runs what docker-compose.yml at the root of this repository
// says, without Docker.
//
// It is a module of its own, so that what reads the file (compose-go, the library
// of Docker Compose) stays out of the product.
//
// # What it shows
//
// The image is made as the Dockerfile says, from the program that make build
// makes. Each service runs in namespaces of its own: its file system is that of
// its image, read-only where the file says so, its volumes and folders are
// mounted, its user has no rights, its networks are bridges with the subnets of
// the file, names are known while their services run, and ports are forwarded
// from loopback. nginx and Prometheus are Debian's, with the file's configuration.
//
// # What it does not show
//
// Docker's own ways: how it builds, pulls, restarts and limits. Debian's nginx and
// Prometheus are older than the images that the file names. A setting of a service
// that is not applied here fails the test, so that none is passed over.
//
// # Needs
//
// Root, ip and nsenter. Elsewhere what runs services is skipped; what reads the
// file is tested anywhere.
package composetest
