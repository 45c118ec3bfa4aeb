"""Pickle fragments that would run code, or break a reader that trusted them."""

import io
import struct
import zipfile
from pathlib import Path

SLOT = "the-slot-9c1d"


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def name(dotted: str) -> bytes:
    module, _, last = dotted.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def call(dotted: str, *arguments: bytes) -> bytes:
    return name(dotted) + b"(" + b"".join(arguments) + b"tR"


def persistent(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"tQ"


FLOATS = name("torch.FloatStorage")
STORAGE_0 = persistent(text("storage"), FLOATS, text("0"), text("cpu"), b"K\x04")


def tensor(storage: bytes, offset: bytes, shape: bytes, strides: bytes) -> bytes:
    hooks = name("collections.OrderedDict") + b")R"
    return call("torch._utils._rebuild_tensor_v2", storage, offset, shape, strides, b"\x89", hooks)


def live(canary: Path) -> dict[str, bytes]:
    """Those that leave a file behind when they are loaded as usual."""
    touch, write = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    return {
        "os.system": call("os.system", text(touch)),
        "posix.system": call("posix.system", text(touch)),
        "builtins.eval": call("builtins.eval", text(write)),
        "builtins.exec": call("builtins.exec", text(write)),
        "builtins.eval of Python 2": call("__builtin__.eval", text(write)),
        "builtins.open": call("builtins.open", text(str(canary)), text("w")),
        "subprocess.check_output": call(
            "subprocess.check_output", b"](" + text("touch") + text(str(canary)) + b"e"
        ),
        "runpy._run_code": call("runpy._run_code", text(write), b"}"),
        "builtins.getattr": call("builtins.getattr", call("builtins.__import__", text("os")),
                                 text("system"))[:-2] + b"tR(" + text(touch) + b"tR",
        "INST": b"(" + text(touch) + b"ios\nsystem\n",
        "OBJ": b"(" + name("os.system") + text(touch) + b"o",
        "STACK_GLOBAL": text("os") + text("system") + b"\x93(" + text(touch) + b"tR",
        "state of a class": name("types.SimpleNamespace") + b")\x81"
        + call("builtins.eval", text(write)) + b"b",
        "dotted name": text("pathlib") + text("os.system") + b"\x93(" + text(touch) + b"tR",
        "argument of a harmless class": call("pathlib.PosixPath", call("os.system", text(touch))),
    }  # fmt: skip


NAMED = """
nt.system os.popen os.execv os.remove os.environ subprocess.Popen subprocess.call pty.spawn sys.exit
sys.modules sys.setprofile builtins.compile builtins.__import__ builtins.setattr builtins.delattr
builtins.globals builtins.vars builtins.map builtins.type builtins.super builtins.breakpoint
importlib.import_module importlib._bootstrap._load runpy.run_path runpy.run_module shutil.rmtree
shutil.copy socket.create_connection socket.socket urllib.request.urlopen webbrowser.open
ctypes.CDLL ctypes.cdll.LoadLibrary marshal.loads pickle.loads _pickle.loads _pickle.Unpickler
copyreg.__newobj__ copyreg.add_extension operator.attrgetter operator.methodcaller _operator.getitem
functools.partial functools.reduce itertools.starmap types.FunctionType types.CodeType
types.MethodType code.InteractiveInterpreter codeop.compile_command cProfile.run profile.run
timeit.timeit pdb.run bdb.Bdb doctest.debug_script trace.Trace asyncio.create_subprocess_shell
multiprocessing.Process threading.Thread concurrent.futures.ProcessPoolExecutor signal.signal
atexit.register gc.get_objects inspect.getattr_static linecache.getlines tempfile.mktemp
logging.config.listen logging.Logger zipimport.zipimporter pkgutil.resolve_name site.main
pip.main pip._internal.main setuptools.setup numpy.load numpy.f2py.crackfortran.myeval
numpy.core.multiarray.fromfile numpy.testing._private.utils.runstring joblib.load dill.loads
cloudpickle.loads torch.load torch.save torch.hub.load torch.jit.load torch.ops.load_library
torch.package.PackageImporter torch.serialization.load torch._utils._rebuild_wrapper_subclass
torch._utils._rebuild_device_tensor_from_numpy torch._utils._import_dotted_name
torch.utils.cpp_extension.load torch.utils.data.DataLoader torch.storage._load_from_bytes
torch._inductor.codecache.compile_file torch.nn.modules.linear.Linear torch.nn.Linear
torch.distributed.rpc.rpc_sync torch.cuda.init torch.FloatTensor torch.UntypedStorage
transformers.pipeline transformers.utils.import_utils.importlib.import_module
transformers.AutoModel.from_pretrained omegaconf.OmegaConf.register_new_resolver
omegaconf.OmegaConf.load omegaconf._utils.get_yaml_loader typing.sys.modules typing.get_type_hints
collections._sys collections.abc.sys collections.UserDict pathlib.os.system lightning.os.system
pytorch_lightning.utilities.cloud_io.load tokenizers.os re.compile re._compiler.compile
_codecs.decode _codecs.lookup argparse.ArgumentParser argparse.FileType datetime.sys.exit
__main__.Anything idlm_ds.files.write_atomic models.dit.DIT
idlm_ds.checkpoints.pickle_reader.allowed.Inert
"""
NAMES = NAMED.split()
"""Names that no file of weights needs, called with one text."""

INSTRUCTIONS = {
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00",
    "PERSID": b"Pstorage\n",
    "READONLY_BUFFER": b"N\x98",
    "INST of a harmless class": b"(itransformers\nTokenizer\n",
    "OBJ of a harmless class": b"(" + name("transformers.Tokenizer") + b"o",
    "NEWOBJ of a function": name("os.system") + b")\x81",
    "NEWOBJ_EX of a function": name("os.system") + b")}\x92",
    "a called text": text("os.system") + b"(" + text("true") + b"tR",
    "a called record": call("transformers.Tokenizer") + b"(" + text("true") + b"tR",
    "a called list": b"](tR",
    "arguments that are a list": name("transformers.Tokenizer") + b"]R",
    "STACK_GLOBAL of numbers": b"K\x01K\x02\x93",
    "BUILD on a text": text("a") + b"}b",
    "BUILD on a list": b"]}b",
    "BUILD on a class": name("transformers.Tokenizer") + b"}b",
    "BUILD on a tensor": tensor(STORAGE_0, b"K\x00", b"K\x04\x85", b"K\x01\x85") + b"}b",
    "BUILD of a dictionary with a tuple": b"})b",
    "APPEND to a tuple": b")Na",
    "APPEND to a dictionary": b"}Na",
    "SETITEM of a list": b"]K\x00K\x01s",
    "SETITEM of a class": name("transformers.Tokenizer") + b"K\x00K\x01s",
    "a nested key": b"}((K\x01tK\x02tK\x03s",
    "a huge key": b"}\x8a\x20" + b"\x7f" * 32 + b"K\x03s",
    "a list as a key": b"}]K\x03s",
    "a long name": name("typing.A" + "a" * 300),
    "a name with a space": b"comegaconf\nOs System\n",
    "a name with a line end": text("omegaconf") + text("Conf\n") + b"\x93",
    "a module with a slash": text("transformers.../os") + text("System") + b"\x93",
    "a letter outside ASCII": text("typing") + text("\u00c9tat") + b"\x93",
}

REFERENCES = {
    "a path upwards": [b"storage", FLOATS, "../../etc/passwd", "cpu", b"K\x04"],
    "an absolute path": [b"storage", FLOATS, "/etc/passwd", "cpu", b"K\x04"],
    "a path with a line end": [b"storage", FLOATS, "0\n", "cpu", b"K\x04"],
    "digits of another script": [b"storage", FLOATS, "\u0663", "cpu", b"K\x04"],
    "an empty key": [b"storage", FLOATS, "", "cpu", b"K\x04"],
    "a key that is a number": [b"storage", FLOATS, b"K\x00", "cpu", b"K\x04"],
    "another kind": [b"module", FLOATS, "0", "cpu", b"K\x04"],
    "another class": [b"storage", name("transformers.FloatStorage"), "0", "cpu", b"K\x04"],
    "no storage": [b"storage", name("torch.Size"), "0", "cpu", b"K\x04"],
    "a negative count": [b"storage", FLOATS, "0", "cpu", b"J\xff\xff\xff\xff"],
    "a text as count": [b"storage", FLOATS, "0", "cpu", "4"],
    "too few parts": [b"storage", FLOATS, "0", "cpu"],
}

TENSORS = {
    "beyond its data": tensor(STORAGE_0, b"K\x00", b"K\x05\x85", b"K\x01\x85"),
    "from beyond its data": tensor(STORAGE_0, b"K\x04", b"K\x01\x85", b"K\x01\x85"),
    "in long steps": tensor(STORAGE_0, b"K\x00", b"K\x02\x85", b"K\x04\x85"),
    "in no steps": tensor(STORAGE_0, b"K\x00", b"J\x00\x00\x00\x7f\x85", b"K\x00\x85"),
}
"""Tensors larger than the four numbers they are said to be made of."""


def inert(canary: Path) -> dict[str, bytes]:
    """All the others."""
    called = {dotted: call(dotted, text(f"touch {canary}")) for dotted in NAMES}
    mentioned = {f"{dotted}, mentioned": name(dotted) for dotted in NAMES[::7]}
    parts = {
        k: [text(p) if isinstance(p, str) else text(p.decode()) if p.isalpha() else p for p in v]
        for k, v in REFERENCES.items()
    }
    references = {f"reference to {k}": persistent(*v) for k, v in parts.items()}
    tensors = {f"tensor {k}": v for k, v in TENSORS.items()}
    return called | mentioned | INSTRUCTIONS | references | tensors


def splice(content: bytes, fragment: bytes) -> bytes:
    """Put a fragment in place of ``SLOT`` in the pickle of a file of ``torch.save``."""
    return rewrite(content, lambda stream: stream.replace(text(SLOT), fragment))


def rewrite(content: bytes, change) -> bytes:
    """Change the pickle in a file of ``torch.save`` and keep the rest."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry.endswith("data.pkl"):
                changed = change(data)
                assert changed != data
                data = changed
            new.writestr(entry, data)
    return target.getvalue()
