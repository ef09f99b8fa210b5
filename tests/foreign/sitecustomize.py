"""Python runs this at every start when the folder is on PYTHONPATH: child processes are wrapped too."""

import wrap_every_app

wrap_every_app.install()
