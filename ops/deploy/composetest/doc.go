// Package composetest runs docker-compose.yml of this repository, and the one for
// Matomo in ops/deploy/matomo, without Docker.
//
// It is a module of its own, so that the product does not depend on compose-go,
// the library of Docker Compose that reads the file.
//
// # What it shows
//
// The image is built as the Dockerfile says, from the program that make build
// makes. Each service runs in namespaces of its own:
//
//   - Its file system is that of its image, read-only if the file says so.
//   - Its volumes and folders are mounted.
//   - Its user has no capabilities.
//   - Its networks are bridges with the subnets of the file.
//   - The names of services resolve while the services run.
//   - Its ports are forwarded from loopback.
//
// nginx and Prometheus are Debian's, with the configuration of the file. In place of
// Matomo runs PHP, which says what it read of a request; MariaDB does not run.
//
// # What it does not show
//
// Docker's behaviour: how it builds, pulls, restarts and limits. Debian's nginx
// and Prometheus are older than the images in the file. If a service has a setting
// that this package does not apply, the test fails, so no setting is ignored.
//
// # Requirements
//
// Root, ip and nsenter. Without them the tests that run services are skipped, and
// the tests that only read the file run.
package composetest
