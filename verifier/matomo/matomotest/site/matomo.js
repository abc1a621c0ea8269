// a static file
